//! One call on the server's side: its deadline, the tenant it names, and the flag that is raised when its caller
//! leaves.

use std::time::{Duration, Instant};

use storage::{Budget, Cancel, Context, PartialResponse};
use tonic::metadata::MetadataMap;
use wire::pb::thanos::PartialResponseStrategy;

use crate::TENANT_METADATA;

/// Raises a flag unless it is dropped by the call that has ended anyhow.
pub(crate) struct RaiseOnDrop(pub(crate) Cancel);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// What calls may hold: each no more than its own limit, and all together no more than one budget.
#[derive(Clone, Debug)]
pub struct CallBudget {
    all: Budget,
    each: Option<(&'static str, u64)>,
}

impl From<Budget> for CallBudget {
    /// One budget, with no limit for a single call beside it.
    fn from(all: Budget) -> CallBudget {
        CallBudget { all, each: None }
    }
}

impl CallBudget {
    /// `limit` in bytes; `name` appears in the refusal, as the operator knows the setting.
    pub fn each(all: Budget, name: &'static str, limit: u64) -> CallBudget {
        CallBudget { all, each: Some((name, limit)) }
    }

    /// The budget of one call.
    pub(crate) fn of_call(&self) -> Budget {
        match self.each {
            Some((name, limit)) => self.all.child(name, limit),
            None => self.all.clone(),
        }
    }
}

/// What a call may cost, with the deadline that its caller states.
pub(crate) fn context(
    metadata: &MetadataMap,
    now: Instant,
    budget: &CallBudget,
    partial: PartialResponse,
) -> Context {
    let deadline = deadline_of(metadata).and_then(|left| now.checked_add(left));
    Context { cancel: Cancel::new(deadline), budget: budget.of_call(), partial }
}

/// The tenant that a caller names, if it does.
pub(crate) fn tenant_of(metadata: &MetadataMap) -> Option<String> {
    let named = metadata.get(TENANT_METADATA)?.to_str().ok()?;
    (!named.is_empty()).then(|| named.to_owned())
}

/// Thanos's strategy as ours; what is unknown is strict.
pub(crate) fn partial_of(disabled: bool, strategy: i32) -> PartialResponse {
    match PartialResponseStrategy::try_from(strategy) {
        Ok(PartialResponseStrategy::Warn) if !disabled => PartialResponse::Warn,
        _ => PartialResponse::Abort,
    }
}

/// Ours as Thanos's.
pub(crate) fn strategy(context: &Context) -> i32 {
    match context.partial {
        PartialResponse::Warn => PartialResponseStrategy::Warn as i32,
        PartialResponse::Abort => PartialResponseStrategy::Abort as i32,
    }
}

/// The time left that a caller states, as gRPC writes it: up to eight digits and a unit.
fn deadline_of(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        'H' => Some(Duration::from_secs(amount * 3600)),
        'M' => Some(Duration::from_secs(amount * 60)),
        'S' => Some(Duration::from_secs(amount)),
        'm' => Some(Duration::from_millis(amount)),
        'u' => Some(Duration::from_micros(amount)),
        'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_as_grpc_writes_them() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline_of(&metadata)
        };
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("5S"), Some(Duration::from_secs(5)));
        assert_eq!(of("1H"), Some(Duration::from_secs(3600)));
        for bad in ["", "5", "S", "123456789S", "-1S", "1x"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
