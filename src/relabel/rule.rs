//! One rule, and what it does to a label set.

use md5::{Digest, Md5};
use model::{LabelsBuilder, Pattern};

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the target label where the expression matches the sources.
    Replace,
    /// Drops label sets whose sources do not match.
    Keep,
    /// Drops label sets whose sources match.
    Drop,
    /// Drops label sets whose sources are not equal to the target label.
    KeepEqual,
    /// Drops label sets whose sources are equal to the target label.
    DropEqual,
    /// Sets the target label to the sources' hash modulo a number.
    HashMod,
    /// Copies labels whose names match to other names.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Sets the target label to the sources in lower case.
    Lowercase,
    /// Sets the target label to the sources in upper case.
    Uppercase,
}

impl Action {
    pub const ALL: [(&'static str, Action); 11] = [
        ("replace", Action::Replace),
        ("keep", Action::Keep),
        ("drop", Action::Drop),
        ("keepequal", Action::KeepEqual),
        ("dropequal", Action::DropEqual),
        ("hashmod", Action::HashMod),
        ("labelmap", Action::LabelMap),
        ("labeldrop", Action::LabelDrop),
        ("labelkeep", Action::LabelKeep),
        ("lowercase", Action::Lowercase),
        ("uppercase", Action::Uppercase),
    ];

    /// By its name in any case.
    pub fn from_name(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, action)| action)
    }
}

/// A rule, checked.
#[derive(Clone)]
pub struct Rule {
    pub action: Action,
    pub source_labels: Vec<String>,
    pub separator: String,
    pub target_label: String,
    pub pattern: std::sync::Arc<Pattern>,
    /// Of [`Action::HashMod`], at least 1.
    pub modulus: u64,
    pub replacement: String,
}

impl Rule {
    /// Changes the labels; false drops them.
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        match self.action {
            Action::Replace => self.replace(labels),
            Action::Keep => return self.pattern.matches(&self.sources(labels)),
            Action::Drop => return !self.pattern.matches(&self.sources(labels)),
            Action::KeepEqual => return labels.get(&self.target_label).unwrap_or("") == self.sources(labels),
            Action::DropEqual => return labels.get(&self.target_label).unwrap_or("") != self.sources(labels),
            Action::HashMod => {
                let remainder = hash(&self.sources(labels)) % self.modulus.max(1);
                labels.set(&self.target_label, &remainder.to_string());
            }
            Action::LabelMap => {
                for (name, value) in labels.pairs() {
                    if let Some(found) = self.pattern.regex().captures(&name) {
                        let mut to = String::new();
                        found.expand(&self.replacement, &mut to);
                        labels.set(&to, &value);
                    }
                }
            }
            Action::LabelDrop => self.remove(labels, true),
            Action::LabelKeep => self.remove(labels, false),
            Action::Lowercase => {
                let text = self.sources(labels).to_lowercase();
                labels.set(&self.target_label, &text);
            }
            Action::Uppercase => {
                let text = self.sources(labels).to_uppercase();
                labels.set(&self.target_label, &text);
            }
        }
        true
    }

    fn sources(&self, labels: &LabelsBuilder) -> String {
        let mut text = String::new();
        for (at, name) in self.source_labels.iter().enumerate() {
            if at > 0 {
                text.push_str(&self.separator);
            }
            text.push_str(labels.get(name).unwrap_or(""));
        }
        text
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let sources = self.sources(labels);
        let Some(found) = self.pattern.regex().captures(&sources) else { return };
        let (mut target, mut value) = (String::new(), String::new());
        found.expand(&self.target_label, &mut target);
        if target.is_empty() {
            return;
        }
        found.expand(&self.replacement, &mut value);
        labels.set(&target, &value);
    }

    fn remove(&self, labels: &mut LabelsBuilder, matching: bool) {
        for (name, _) in labels.pairs() {
            if self.pattern.matches(&name) == matching {
                labels.remove(&name);
            }
        }
    }
}

/// The last eight bytes of the MD5 sum.
fn hash(text: &str) -> u64 {
    let sum: [u8; 16] = Md5::digest(text.as_bytes()).into();
    sum[8..].iter().fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
