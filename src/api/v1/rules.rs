//! `rules` and `alerts`: groups of recording and alerting rules, filtered and in pages.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use model::{Labels, Matcher};
use serde::Serialize;
use serde_json::Number;
use wire::pb::thanos as pb;

use super::ApiState;
use super::facts::{self, json, map, seconds, time};
use crate::Problem;
use crate::params::Params;

type Texts<'a> = BTreeMap<&'a str, &'a str>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group<'a> {
    name: &'a str,
    file: &'a str,
    rules: Vec<Rule<'a>>,
    interval: Number,
    limit: i64,
    evaluation_time: Number,
    last_evaluation: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rule<'a> {
    Alerting(Alerting<'a>),
    Recording(Recording<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alerting<'a> {
    state: &'static str,
    name: &'a str,
    query: &'a str,
    duration: Number,
    keep_firing_for: Number,
    labels: Texts<'a>,
    annotations: Texts<'a>,
    alerts: Option<Vec<Alert<'a>>>,
    health: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_error: &'a str,
    evaluation_time: Number,
    last_evaluation: String,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recording<'a> {
    name: &'a str,
    query: &'a str,
    labels: Texts<'a>,
    health: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_error: &'a str,
    evaluation_time: Number,
    last_evaluation: String,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    labels: Texts<'a>,
    annotations: Texts<'a>,
    state: &'static str,
    active_at: String,
    value: &'a str,
}

/// What is asked for.
struct Wanted {
    request: pb::RulesRequest,
    matchers: Vec<Vec<Matcher>>,
    exclude_alerts: bool,
    page: Option<usize>,
    token: String,
}

impl Wanted {
    /// The type and the pages count in the URL only; lists may come in a form.
    fn read(url: &Params, params: &Params) -> Result<Wanted, Problem> {
        let kind = url.get("type");
        let rule_type = match kind.to_ascii_lowercase().as_str() {
            "" | "all" => pb::rules_request::Type::All,
            "alert" => pb::rules_request::Type::Alert,
            "record" => pb::rules_request::Type::Record,
            _ => return Err(Problem::parameter("type", format!("not supported value {kind:?}"))),
        };
        let texts = |name| params.all(name).map(str::to_owned).collect::<Vec<_>>();
        let mut matchers = Vec::new();
        for text in params.all("match[]") {
            matchers.push(promql::parse_selector(text).map_err(|why| Problem::parameter("match[]", why))?);
        }
        let request = pb::RulesRequest {
            r#type: rule_type as i32,
            matcher_string: texts("match[]"),
            rule_name: texts("rule_name[]"),
            rule_group: texts("rule_group[]"),
            file: texts("file[]"),
            ..Default::default()
        };
        let token = url.get("group_next_token").to_owned();
        let page = match url.get("group_limit") {
            "" if !token.is_empty() => {
                return Err(Problem::parameter(
                    "group_limit",
                    "group_limit needs to be present in order to paginate over the groups",
                ));
            }
            "" => None,
            text => match text.parse::<i64>() {
                Ok(limit) => Some(usize::try_from(limit).ok().filter(|l| *l > 0).ok_or_else(|| {
                    Problem::parameter("group_limit", "group_limit needs to be greater than 0")
                })?),
                Err(_) => {
                    return Err(Problem::parameter("group_limit", "group_limit needs to be a valid number"));
                }
            },
        };
        let exclude_alerts = match url.get("exclude_alerts") {
            "" => false,
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            text => {
                return Err(Problem::parameter(
                    "exclude_alerts",
                    format!("strconv.ParseBool: parsing {text:?}: invalid syntax"),
                ));
            }
        };
        Ok(Wanted { request, matchers, exclude_alerts, page, token })
    }

    /// A peer may have sent more than was asked for: older ones know fewer filters.
    fn keeps_group(&self, group: &pb::RuleGroup) -> bool {
        let request = &self.request;
        (request.rule_group.is_empty() || request.rule_group.contains(&group.name))
            && (request.file.is_empty() || request.file.contains(&group.file))
    }

    fn keeps(&self, rule: &pb::rule::Result) -> bool {
        use pb::rules_request::Type;
        let (name, labels, wanted) = match rule {
            pb::rule::Result::Recording(rule) => (&rule.name, rule.labels.as_ref(), Type::Record),
            pb::rule::Result::Alert(rule) => (&rule.name, rule.labels.as_ref(), Type::Alert),
        };
        let of_type = self.request.r#type == Type::All as i32 || self.request.r#type == wanted as i32;
        let named = self.request.rule_name.is_empty() || self.request.rule_name.contains(name);
        let matches = || {
            let labels = Labels::from_pairs(map(labels)).unwrap_or_default();
            self.matchers.iter().any(|set| Matcher::all_match(set, &labels))
        };
        of_type && named && (self.matchers.is_empty() || matches())
    }

    fn write(&self, groups: &[pb::RuleGroup]) -> Result<Vec<u8>, Problem> {
        let mut shown: Vec<Group<'_>> = Vec::new();
        let mut next = None;
        let mut begun = self.token.is_empty();
        for group in groups.iter().filter(|group| self.keeps_group(group)) {
            begun |= token(group) == self.token;
            if !begun {
                continue;
            }
            let rules = group.rules.iter().filter_map(|rule| rule.result.as_ref());
            let rules: Vec<_> =
                rules.filter(|r| self.keeps(r)).map(|r| show(r, self.exclude_alerts)).collect();
            if rules.is_empty() {
                continue;
            }
            if self.page.is_some_and(|page| shown.len() == page) {
                next = Some(token(group));
                break;
            }
            shown.push(Group {
                name: &group.name,
                file: &group.file,
                rules,
                interval: seconds(group.interval),
                limit: group.limit,
                evaluation_time: seconds(group.evaluation_duration_seconds),
                last_evaluation: time(group.last_evaluation.as_ref().map(|t| (t.seconds, t.nanos))),
            });
        }
        if !begun {
            let text = format!("invalid group_next_token '{}'. were rule groups changed?", self.token);
            return Err(Problem::parameter("group_next_token", text));
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Page<'a> {
            groups: Vec<Group<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            group_next_token: Option<String>,
        }
        json(&Page { groups: shown, group_next_token: next })
    }
}

/// Names a group for the next page: its file and name in hexadecimal, so that equal ones mean the same group.
fn token(group: &pb::RuleGroup) -> String {
    let bytes = group.file.bytes().chain([b';']).chain(group.name.bytes());
    bytes.map(|b| format!("{b:02x}")).collect()
}

fn show(rule: &pb::rule::Result, exclude_alerts: bool) -> Rule<'_> {
    match rule {
        pb::rule::Result::Recording(rule) => Rule::Recording(Recording {
            name: &rule.name,
            query: &rule.query,
            labels: map(rule.labels.as_ref()),
            health: &rule.health,
            last_error: &rule.last_error,
            evaluation_time: seconds(rule.evaluation_duration_seconds),
            last_evaluation: time(rule.last_evaluation.as_ref().map(|t| (t.seconds, t.nanos))),
            r#type: "recording",
        }),
        pb::rule::Result::Alert(rule) => Rule::Alerting(Alerting {
            state: state(rule.state),
            name: &rule.name,
            query: &rule.query,
            duration: seconds(rule.duration_seconds),
            keep_firing_for: seconds(rule.keep_firing_for_seconds),
            labels: map(rule.labels.as_ref()),
            annotations: map(rule.annotations.as_ref()),
            alerts: (!exclude_alerts).then(|| rule.alerts.iter().map(alert).collect()),
            health: &rule.health,
            last_error: &rule.last_error,
            evaluation_time: seconds(rule.evaluation_duration_seconds),
            last_evaluation: time(rule.last_evaluation.as_ref().map(|t| (t.seconds, t.nanos))),
            r#type: "alerting",
        }),
    }
}

fn alert(one: &pb::AlertInstance) -> Alert<'_> {
    Alert {
        labels: map(one.labels.as_ref()),
        annotations: map(one.annotations.as_ref()),
        state: state(one.state),
        active_at: time(one.active_at.as_ref().map(|t| (t.seconds, t.nanos))),
        value: &one.value,
    }
}

fn state(state: i32) -> &'static str {
    match pb::AlertState::try_from(state) {
        Ok(pb::AlertState::Firing) => "firing",
        Ok(pb::AlertState::Pending) => "pending",
        Ok(pb::AlertState::Inactive) => "inactive",
        Ok(pb::AlertState::Unknown) | Err(_) => "unknown",
    }
}

pub(super) async fn rules(
    State(api): State<ApiState>,
    headers: HeaderMap,
    RawQuery(url): RawQuery,
    params: Params,
) -> Result<Response, Problem> {
    let url = Params::parse(b"", url.unwrap_or_default().as_bytes())?;
    let wanted = Wanted::read(&url, &params)?;
    let request = wanted.request.clone();
    facts::answer(
        &api,
        &headers,
        &params,
        move |facts, read, context| facts.rules(&request, read, context),
        move |groups| wanted.write(&groups),
    )
    .await
}

pub(super) async fn alerts(
    State(api): State<ApiState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let request = pb::RulesRequest { r#type: pb::rules_request::Type::Alert as i32, ..Default::default() };
    let write = |groups: Vec<pb::RuleGroup>| {
        let rules = groups.iter().flat_map(|group| &group.rules);
        let alerts: Vec<Alert<'_>> = rules
            .filter_map(|rule| match &rule.result {
                Some(pb::rule::Result::Alert(rule)) => Some(rule),
                _ => None,
            })
            .flat_map(|rule| rule.alerts.iter().map(alert))
            .collect();
        #[derive(Serialize)]
        struct Alerts<'a> {
            alerts: Vec<Alert<'a>>,
        }
        json(&Alerts { alerts })
    };
    facts::answer(&api, &headers, &params, move |facts, read, c| facts.rules(&request, read, c), write).await
}
