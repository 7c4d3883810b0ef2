//! Prometheus relabelling: rules read from YAML, applied to labels.
//!
//! A list of rules is applied in order to one label set, and either changes it or drops it. Receivers apply one before
//! placement; whoever selects blocks by external labels applies another. The crate knows labels and nothing of who has
//! them. Source: Prometheus 3, `relabel_config`.

mod config;
mod rule;

pub use config::{InvalidRules, parse};
pub use rule::{Action, Rule};

use model::{InvalidLabels, Labels};

/// Rules in the order in which they are applied.
#[derive(Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// No rules.
pub static NONE: Rules = Rules { rules: Vec::new() };

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Rules {
        Rules { rules }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// The labels that remain, or none where a rule drops them. The error is for labels that no series may have.
    pub fn apply(&self, labels: &Labels) -> Result<Option<Labels>, InvalidLabels> {
        if self.rules.is_empty() {
            return Ok(Some(labels.clone()));
        }
        let mut builder = labels.to_builder();
        for rule in &self.rules {
            if !rule.apply(&mut builder) {
                return Ok(None);
            }
        }
        builder.finish().map(Some)
    }
}
