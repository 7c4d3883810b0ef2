//! Which series belong together: a signature of their labels, and dense group ids.

use hashbrown::HashMap;
use model::Labels;

use super::is_metadata;

/// Which labels count.
#[derive(Clone, Debug)]
pub(crate) struct Grouping {
    labels: Vec<String>,
    without: bool,
}

impl Grouping {
    /// `by (labels)`, or `without (labels)`, which leaves the name out too. `labels` are sorted.
    pub(crate) fn new(labels: &[String], without: bool) -> Grouping {
        Grouping { labels: labels.to_vec(), without }
    }

    /// The labels of the group that `labels` belong to.
    pub(crate) fn key(&self, labels: &Labels) -> Labels {
        let listed = |name: &str| self.labels.iter().any(|l| l == name);
        if self.without {
            labels.filter(|name| !is_metadata(name) && !listed(name))
        } else if self.labels.is_empty() {
            Labels::empty()
        } else {
            labels.filter(listed)
        }
    }
}

/// What was made of labels that come again and again as clones of one another, as those of a selector come of which
/// only some labels are needed.
pub(crate) struct Memo<T> {
    places: Vec<Option<(Labels, T)>>,
}

impl<T: Clone> Memo<T> {
    pub(crate) fn new() -> Memo<T> {
        Memo { places: vec![None; 256] }
    }

    pub(crate) fn get(&mut self, labels: &Labels, make: impl FnOnce(&Labels) -> T) -> T {
        let address = labels.address();
        // Allocations lie sixteen bytes apart at least.
        let place = (address >> 4 ^ address >> 12) % self.places.len();
        let place = &mut self.places[place];
        match place {
            Some((known, made)) if known.address() == address => made.clone(),
            _ => place.insert((labels.clone(), make(labels))).1.clone(),
        }
    }
}

/// Dense ids of groups, in the order of their first appearance.
#[derive(Default)]
pub(crate) struct Groups {
    ids: HashMap<Labels, u32>,
    pub(crate) labels: Vec<Labels>,
}

impl Groups {
    /// The id of a key, and whether it is new.
    pub(crate) fn id(&mut self, key: Labels) -> (usize, bool) {
        if let Some(id) = self.ids.get(&key) {
            return (*id as usize, false);
        }
        let id = self.labels.len();
        self.ids.insert(key.clone(), id as u32);
        self.labels.push(key);
        (id, true)
    }

    pub(crate) fn find(&self, key: &Labels) -> Option<usize> {
        self.ids.get(key).map(|id| *id as usize)
    }
}
