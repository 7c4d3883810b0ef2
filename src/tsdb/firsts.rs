//! The first so many of texts that come in any order, so that a short list of many costs little.

use std::collections::BTreeSet;

/// A sorted set that keeps only its first members.
#[derive(Debug)]
pub(crate) struct Firsts {
    texts: BTreeSet<String>,
    limit: usize,
    cut: bool,
}

impl Firsts {
    /// At most `limit` are kept; 0 keeps all.
    pub(crate) fn new(limit: usize) -> Firsts {
        let limit = if limit == 0 { usize::MAX } else { limit };
        Firsts { texts: BTreeSet::new(), limit, cut: false }
    }

    /// How many of a sorted list are worth offering; 0 for all. One more than are kept, so that a cut is noticed.
    pub(crate) fn wanted(&self) -> usize {
        self.limit.checked_add(1).unwrap_or(0)
    }

    /// Takes a text if it is among the first; copies it only then.
    pub(crate) fn offer(&mut self, text: &str) {
        if self.texts.len() >= self.limit && self.texts.last().is_some_and(|last| text > last.as_str()) {
            self.cut = true;
            return;
        }
        if self.texts.contains(text) {
            return;
        }
        self.texts.insert(text.to_owned());
        if self.texts.len() > self.limit {
            self.texts.pop_last();
            self.cut = true;
        }
    }

    /// What was kept, sorted, and whether anything was not.
    pub(crate) fn finish(self) -> (Vec<String>, bool) {
        (self.texts.into_iter().collect(), self.cut)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_that_was_cut(texts in proptest::collection::vec("[a-d]{0,2}", 0..40), limit in 0usize..6) {
            let mut firsts = Firsts::new(limit);
            texts.iter().for_each(|text| firsts.offer(text));
            let all: BTreeSet<String> = texts.into_iter().collect();
            let keep = if limit == 0 { all.len() } else { limit };
            let want: Vec<String> = all.iter().take(keep).cloned().collect();
            prop_assert_eq!(firsts.finish(), (want, all.len() > keep));
        }
    }

    #[test]
    fn one_more_is_wanted_than_kept() {
        assert_eq!((Firsts::new(0).wanted(), Firsts::new(3).wanted()), (0, 4));
    }
}
