//! Rule groups of several rulers as one list: equal groups become one, replicas of a rule too. Pure functions.

use std::collections::BTreeMap;

use model::Labels;
use wire::pb::thanos as pb;
use wire::pb::thanos::rule::Result as Kind;

use crate::facts::{carries, labels_of, remove};

/// By file and name. Of replicas of an alerting rule the one in the graver state stands, and of equal ones that
/// which was evaluated last. With `only`, rules without this label and value are left out.
pub fn merge(
    groups: impl Iterator<Item = pb::RuleGroup>,
    replica_labels: &[String],
    only: Option<(&str, &str)>,
) -> Vec<pb::RuleGroup> {
    let mut merged: BTreeMap<(String, String), pb::RuleGroup> = BTreeMap::new();
    for mut group in groups {
        let rules = std::mem::take(&mut group.rules);
        let rules = rules
            .into_iter()
            .filter_map(|mut rule| prepare(rule.result.as_mut()?, replica_labels, only).then_some(rule));
        let rules: Vec<pb::Rule> = rules.collect();
        if rules.is_empty() {
            continue;
        }
        let key = (group.file.clone(), group.name.clone());
        let known = merged.entry(key).or_insert_with(|| pb::RuleGroup { rules: Vec::new(), ..group.clone() });
        if later(&group.last_evaluation, &known.last_evaluation) {
            let rules = std::mem::take(&mut known.rules);
            *known = pb::RuleGroup { rules, ..group };
        }
        rules.into_iter().for_each(|rule| add(&mut known.rules, rule));
    }
    merged.into_values().collect()
}

/// Takes replica labels away; false if the rule is not to be shown.
fn prepare(rule: &mut Kind, replica_labels: &[String], only: Option<(&str, &str)>) -> bool {
    match rule {
        Kind::Recording(rule) => {
            remove(&mut rule.labels, replica_labels);
            carries(rule.labels.as_ref(), only)
        }
        Kind::Alert(rule) => {
            remove(&mut rule.labels, replica_labels);
            rule.alerts.iter_mut().for_each(|alert| remove(&mut alert.labels, replica_labels));
            let of_tenant = carries(rule.labels.as_ref(), only);
            if !of_tenant {
                // A rule over all tenants may fire for this one.
                rule.alerts.retain(|alert| carries(alert.labels.as_ref(), only));
            }
            of_tenant || !rule.alerts.is_empty()
        }
    }
}

/// What makes two rules of one group the same.
fn identity(rule: &Kind) -> (bool, &str, &str, Labels, u64, u64) {
    match rule {
        Kind::Recording(r) => (false, &r.name, &r.query, labels_of(r.labels.as_ref()), 0, 0),
        Kind::Alert(r) => {
            let (lasting, keeping) = (r.duration_seconds.to_bits(), r.keep_firing_for_seconds.to_bits());
            (true, &r.name, &r.query, labels_of(r.labels.as_ref()), lasting, keeping)
        }
    }
}

fn add(rules: &mut Vec<pb::Rule>, rule: pb::Rule) {
    let Some(new) = &rule.result else { return };
    let same = |known: &&mut pb::Rule| known.result.as_ref().is_some_and(|k| identity(k) == identity(new));
    let Some(known) = rules.iter_mut().find(same) else { return rules.push(rule) };
    let better = match (&known.result, new) {
        (Some(Kind::Alert(old)), Kind::Alert(new)) if old.state != new.state => new.state > old.state,
        (Some(Kind::Alert(old)), Kind::Alert(new)) => later(&new.last_evaluation, &old.last_evaluation),
        (Some(Kind::Recording(old)), Kind::Recording(new)) => {
            later(&new.last_evaluation, &old.last_evaluation)
        }
        _ => false,
    };
    if better {
        *known = rule;
    }
}

fn later(a: &Option<prost_types::Timestamp>, b: &Option<prost_types::Timestamp>) -> bool {
    let key = |t: &Option<prost_types::Timestamp>| t.as_ref().map(|t| (t.seconds, t.nanos));
    key(a) > key(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Option<pb::ZLabelSet> {
        let label = |(n, v): &(&str, &str)| pb::Label { name: (*n).into(), value: (*v).into() };
        Some(pb::ZLabelSet { labels: pairs.iter().map(label).collect() })
    }

    fn alert(replica: &str, state: pb::AlertState, at: i64) -> pb::Rule {
        pb::Rule {
            result: Some(Kind::Alert(pb::Alert {
                name: "Down".into(),
                query: "up == 0".into(),
                state: state as i32,
                labels: set(&[("severity", "page"), ("replica", replica)]),
                alerts: vec![pb::AlertInstance {
                    labels: set(&[("tenant_id", "a"), ("replica", replica)]),
                    ..Default::default()
                }],
                last_evaluation: Some(prost_types::Timestamp { seconds: at, nanos: 0 }),
                ..Default::default()
            })),
        }
    }

    fn group(file: &str, rules: Vec<pb::Rule>) -> pb::RuleGroup {
        pb::RuleGroup { name: "g".into(), file: file.into(), rules, ..Default::default() }
    }

    fn states(groups: &[pb::RuleGroup]) -> Vec<i32> {
        let rules = groups.iter().flat_map(|g| &g.rules);
        rules
            .map(|r| match &r.result {
                Some(Kind::Alert(a)) => a.state,
                _ => -1,
            })
            .collect()
    }

    #[test]
    fn the_graver_state_stands_then_the_later_one() {
        use pb::AlertState::{Firing, Inactive, Pending};
        let groups = || {
            vec![
                group("b", vec![alert("1", Inactive, 9)]),
                group("a", vec![alert("1", Pending, 5)]),
                group("a", vec![alert("2", Firing, 4), alert("3", Inactive, 7)]),
            ]
        };
        let replica = ["replica".to_owned()];
        let merged = merge(groups().into_iter(), &replica, None);
        assert_eq!(merged.iter().map(|g| g.file.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(states(&merged), [Firing as i32, Inactive as i32]);
        let backwards = merge(groups().into_iter().rev(), &replica, None);
        assert_eq!(states(&backwards), states(&merged));
        // Apart, each replica is a rule of its own.
        assert_eq!(states(&merge(groups().into_iter(), &[], None)).len(), 4);
    }

    #[test]
    fn only_a_tenants_rules_are_shown() {
        let all = || vec![group("a", vec![alert("1", pb::AlertState::Firing, 1)])];
        assert_eq!(merge(all().into_iter(), &[], Some(("tenant_id", "a"))).len(), 1);
        assert!(merge(all().into_iter(), &[], Some(("tenant_id", "b"))).is_empty());
        assert_eq!(merge(all().into_iter(), &[], Some(("severity", "page"))).len(), 1);
    }
}
