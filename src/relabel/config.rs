//! Rules from YAML: a list of `relabel_config`, read strictly.

use std::sync::Arc;

use model::Pattern;
use serde::Deserialize;

use crate::{Action, Rule, Rules};

/// Why rules cannot be used; says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRules(pub String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    source_labels: Vec<String>,
    separator: Option<String>,
    target_label: Option<String>,
    regex: Option<String>,
    modulus: Option<u64>,
    replacement: Option<String>,
    action: Option<String>,
}

/// Reads a list of rules.
pub fn parse(yaml: &str) -> Result<Rules, InvalidRules> {
    if yaml.trim().is_empty() {
        return Ok(Rules::default());
    }
    let entries: Vec<Entry> = serde_saphyr::from_str(yaml)
        .map_err(|error| InvalidRules(format!("relabel configuration: {error}")))?;
    let rules: Result<Vec<Rule>, InvalidRules> = entries
        .into_iter()
        .enumerate()
        .map(|(at, entry)| {
            entry
                .settle()
                .map_err(|fault| InvalidRules(format!("relabel configuration, rule {}: {fault}", at + 1)))
        })
        .collect();
    Ok(Rules::new(rules?))
}

impl Entry {
    fn settle(self) -> Result<Rule, String> {
        let name = self.action.as_deref().unwrap_or("replace");
        let action = Action::from_name(name).ok_or_else(|| {
            let known: Vec<&str> = Action::ALL.iter().map(|(name, _)| *name).collect();
            format!("unknown action {name:?}; known are {}", known.join(", "))
        })?;
        let target = self.target_label.clone().unwrap_or_default();
        use Action::*;
        let wants_target =
            matches!(action, Replace | KeepEqual | DropEqual | HashMod | Lowercase | Uppercase);
        if wants_target && target.is_empty() {
            return Err(format!("action {name} needs target_label"));
        }
        let has = |set: bool, key: &str| set.then(|| key.to_owned());
        let beside = [
            has(self.regex.is_some(), "regex"),
            has(self.separator.is_some(), "separator"),
            has(self.modulus.is_some(), "modulus"),
            has(self.replacement.is_some(), "replacement"),
            has(self.target_label.is_some(), "target_label"),
            has(!self.source_labels.is_empty(), "source_labels"),
        ];
        let allowed: &[&str] = match action {
            KeepEqual | DropEqual => &["source_labels", "target_label"],
            LabelDrop | LabelKeep => &["regex"],
            _ => &["regex", "separator", "modulus", "replacement", "target_label", "source_labels"],
        };
        if let Some(key) = beside.into_iter().flatten().find(|key| !allowed.contains(&key.as_str())) {
            return Err(format!("action {name} takes {} only, and {key} is given", allowed.join(" and ")));
        }
        let modulus = match (action, self.modulus.unwrap_or(0)) {
            (HashMod, 0) => return Err("action hashmod needs a modulus of at least 1".to_owned()),
            (_, modulus) => modulus,
        };
        // A target with groups in it is known only when it is applied.
        if wants_target && action != Replace && target.contains('$') {
            return Err(format!("action {name}: {target:?} is not a label name"));
        }
        if let Some(empty) = self.source_labels.iter().find(|name| name.is_empty()) {
            return Err(format!("source label {empty:?} is not a label name"));
        }
        let regex = self.regex.as_deref().unwrap_or("(.*)");
        let pattern = Pattern::new(regex).map_err(|error| format!("regex {regex:?}: {error}"))?;
        Ok(Rule {
            action,
            source_labels: self.source_labels,
            separator: self.separator.unwrap_or_else(|| ";".to_owned()),
            target_label: target,
            pattern: Arc::new(pattern),
            modulus,
            replacement: self.replacement.unwrap_or_else(|| "$1".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(text.iter().copied()).unwrap()
    }

    fn apply(yaml: &str, pairs: &[(&str, &str)]) -> Option<String> {
        parse(yaml).unwrap().apply(&labels(pairs)).unwrap().map(|labels| {
            labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
        })
    }

    const SET: &[(&str, &str)] = &[("__name__", "up"), ("a", "foo"), ("b", "bar"), ("c", "baz")];

    #[test]
    fn each_action_as_prometheus_does_it() {
        for (yaml, want) in [
            (
                "- {source_labels: [a], regex: 'f(.*)', target_label: d, replacement: 'ch${1}-ch${1}'}",
                Some("d=choo-choo"),
            ),
            (
                "- {source_labels: [a, b], regex: 'f(.*);(.*)r', target_label: a, replacement: 'b${1}${2}m'}",
                Some("a=boobam"),
            ),
            ("- {source_labels: [a], regex: nomatch, target_label: d, replacement: x}", Some("a=foo")),
            ("- {source_labels: [a], regex: '(f).*', target_label: 'l_$1', replacement: x}", Some("l_f=x")),
            ("- {source_labels: [a], target_label: a, replacement: ''}", Some("b=bar")),
            ("- {source_labels: [a], regex: foo, action: keep}", Some("a=foo")),
            ("- {source_labels: [a], regex: fo, action: keep}", None),
            ("- {source_labels: [a], regex: 'f.*', action: drop}", None),
            ("- {source_labels: [a], regex: 'o', action: drop}", Some("a=foo")),
            ("- {source_labels: [c], target_label: d, action: hashmod, modulus: 1000}", Some("d=976")),
            ("- {regex: '(b.*)', replacement: 'bar_$1', action: labelmap}", Some("bar_b=bar")),
            ("- {regex: '(b|c)', action: labeldrop}", Some("a=foo")),
            ("- {regex: '(a|__name__)', action: labelkeep}", Some("a=foo")),
            ("- {source_labels: [a], target_label: A, action: uppercase}", Some("A=FOO")),
            ("- {source_labels: [a], target_label: b, action: keepequal}", None),
            ("- {source_labels: [a], target_label: b, action: dropequal}", Some("a=foo")),
            ("", Some("a=foo")),
        ] {
            let got = apply(yaml, SET);
            match want {
                None => assert_eq!(got, None, "{yaml}"),
                Some(part) => assert!(got.as_ref().is_some_and(|got| got.contains(part)), "{yaml}: {got:?}"),
            }
        }
        let kept = apply("- {regex: '(a|__name__)', action: labelkeep}", SET);
        assert_eq!(kept.as_deref(), Some("__name__=up,a=foo"));
        let emptied = apply("- {source_labels: [a], target_label: a, replacement: ''}", SET);
        assert_eq!(emptied.as_deref(), Some("__name__=up,b=bar,c=baz"));
    }

    #[test]
    fn rules_follow_one_another() {
        let yaml = "
- source_labels: [a]
  target_label: d
  replacement: $1-x
- source_labels: [d]
  regex: foo-x
  action: drop
";
        assert_eq!(apply(yaml, SET), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (yaml, part) in [
            ("- {source_label: [a]}", "source_label"),
            ("- {action: nosuch}", "unknown action \"nosuch\""),
            ("- {action: replace}", "rule 1: action replace needs target_label"),
            (
                "- {regex: a, action: labeldrop}\n- {action: hashmod, target_label: x}",
                "rule 2: action hashmod needs a modulus",
            ),
            ("- {regex: '(', action: labeldrop}", "regex"),
            ("- {action: keepequal, target_label: x, regex: y}", "regex is given"),
            ("a: b", "relabel configuration"),
        ] {
            let error = parse(yaml).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(part), "{yaml}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
