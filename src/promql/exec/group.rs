//! Which series belong together: a signature of their labels, and dense group ids.

use hashbrown::HashMap;
use model::Labels;

use super::is_metadata;
use super::run::{shared_labels, table_bytes};

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
    /// Bytes of these labels.
    label_bytes: usize,
}

impl Groups {
    /// The id of a key, and whether it is new.
    pub(crate) fn id(&mut self, key: Labels) -> (usize, bool) {
        if let Some(id) = self.ids.get(&key) {
            return (*id as usize, false);
        }
        let id = self.labels.len();
        self.label_bytes += shared_labels(&key);
        self.ids.insert(key.clone(), id as u32);
        self.labels.push(key);
        (id, true)
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let listed = self.labels.capacity() * size_of::<Labels>();
        table_bytes::<(Labels, u32)>(self.labels.len()) + listed + self.label_bytes
    }

    pub(crate) fn find(&self, key: &Labels) -> Option<usize> {
        self.ids.get(key).map(|id| *id as usize)
    }
}

/// Rows by their group, one list of all.
pub(crate) struct Members {
    /// Where the rows of a group end; they begin where those of the group before do.
    ends: Vec<u32>,
    rows: Vec<u32>,
}

impl Members {
    /// `group_of` has the group of each row, all below `groups`.
    pub(crate) fn new(group_of: &[u32], groups: usize) -> Members {
        let mut ends = vec![0; groups];
        for group in group_of {
            ends[*group as usize] += 1;
        }
        let mut before = 0;
        for end in &mut ends {
            // Where the next row of the group goes, and its end when all have gone.
            before += std::mem::replace(end, before);
        }
        let mut rows = vec![0; group_of.len()];
        for (at, group) in group_of.iter().enumerate() {
            let place = &mut ends[*group as usize];
            rows[*place as usize] = at as u32;
            *place += 1;
        }
        Members { ends, rows }
    }

    /// The rows of a group, in their order.
    pub(crate) fn of(&self, group: usize) -> &[u32] {
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rows[start as usize..self.ends[group] as usize]
    }
}
