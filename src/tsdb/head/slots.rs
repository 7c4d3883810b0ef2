//! A set of slots, ascending, in little space: one, a run of neighbours, many, or many runs.
//!
//! Slots are given in the order in which series come, so that what the series of one target share is a run or a
//! few, and what one series of each target has is a list.

/// Growth of lists at once: an eighth, so that little of what is reserved lies idle.
const GROWTH: usize = 8;
const LEAST: usize = 4;

/// Slots in 16 bytes, and more elsewhere where that does not hold them.
#[derive(Default)]
pub(crate) enum Slots {
    #[default]
    None,
    One(u32),
    /// First and last.
    Run(u32, u32),
    #[allow(clippy::box_collection)]
    List(Box<Vec<u32>>),
    Runs(Box<Runs>),
}

pub(crate) struct Runs {
    len: usize,
    /// First and last of each; neither touching nor overlapping.
    runs: Vec<(u32, u32)>,
}

impl Slots {
    pub(crate) fn len(&self) -> usize {
        match self {
            Slots::None => 0,
            Slots::One(_) => 1,
            Slots::Run(first, last) => (last - first) as usize + 1,
            Slots::List(list) => list.len(),
            Slots::Runs(runs) => runs.len,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a slot, if it is not there.
    pub(crate) fn insert(&mut self, slot: u32) {
        match self {
            Slots::None => *self = Slots::One(slot),
            Slots::One(one) if *one == slot => {}
            Slots::One(one) if one.abs_diff(slot) == 1 => *self = Slots::Run(slot.min(*one), slot.max(*one)),
            Slots::One(one) => {
                *self = Slots::List(Box::new(vec![slot.min(*one), slot.max(*one)]));
            }
            Slots::Run(_, last) if last.checked_add(1) == Some(slot) => *last = slot,
            Slots::Run(first, _) if slot.checked_add(1) == Some(*first) => *first = slot,
            Slots::Run(first, last) if (*first..=*last).contains(&slot) => {}
            Slots::Run(first, last) => {
                let mut runs = Runs { len: (*last - *first) as usize + 1, runs: vec![(*first, *last)] };
                runs.insert(slot);
                *self = runs.shortest();
            }
            Slots::List(list) => {
                if list.last().is_some_and(|last| *last >= slot) {
                    if let Err(at) = list.binary_search(&slot) {
                        room(list);
                        list.insert(at, slot);
                    }
                    return;
                }
                if list.len() == list.capacity() && count_runs(list) * 4 <= list.len() {
                    let mut runs = Runs { len: list.len(), runs: runs_of(list) };
                    runs.insert(slot);
                    *self = runs.shortest();
                    return;
                }
                room(list);
                list.push(slot);
            }
            Slots::Runs(runs) => {
                runs.insert(slot);
                // Each run takes the room of two slots.
                if runs.runs.len() * 2 > runs.len {
                    *self = Slots::List(Box::new(self.to_vec()));
                }
            }
        }
    }

    /// Removes some slots, ascending, in one pass.
    pub(crate) fn remove(&mut self, gone: &[u32]) {
        match self {
            Slots::None => {}
            Slots::One(one) => {
                if gone.binary_search(one).is_ok() {
                    *self = Slots::None;
                }
            }
            Slots::List(list) => {
                subtract(list, gone);
                if list.capacity() > list.len() * 2 {
                    list.shrink_to(list.len() + list.len() / GROWTH);
                }
                if list.len() < 2 {
                    *self = list.first().map_or(Slots::None, |one| Slots::One(*one));
                }
            }
            Slots::Run(..) | Slots::Runs(_) => {
                let mut left = Runs { len: 0, runs: Vec::new() };
                self.each_run(|first, last| {
                    let mut from = u64::from(first);
                    let start = gone.partition_point(|slot| *slot < first);
                    for slot in gone[start..].iter().take_while(|slot| **slot <= last) {
                        left.push(from, u64::from(*slot));
                        from = u64::from(*slot) + 1;
                    }
                    left.push(from, u64::from(last) + 1);
                });
                *self = left.shortest();
            }
        }
    }

    /// Adds all slots to `out`, ascending.
    pub(crate) fn extend(&self, out: &mut Vec<u32>) {
        match self {
            Slots::List(list) => out.extend_from_slice(list),
            _ => self.each_run(|first, last| out.extend(first..=last)),
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u32> {
        let mut out = Vec::with_capacity(self.len());
        self.extend(&mut out);
        out
    }

    /// Keeps those of `slots`, ascending, of which this has one (`inside`) or none.
    pub(crate) fn filter(&self, slots: &mut Vec<u32>, inside: bool) {
        match self {
            Slots::List(list) => {
                let mut rest = list.as_slice();
                slots.retain(|slot| {
                    rest = &rest[rest.partition_point(|other| other < slot)..];
                    (rest.first() == Some(slot)) == inside
                });
            }
            Slots::Runs(runs) => {
                let mut rest = runs.runs.as_slice();
                slots.retain(|slot| {
                    rest = &rest[rest.partition_point(|(_, last)| last < slot)..];
                    rest.first().is_some_and(|(first, _)| first <= slot) == inside
                });
            }
            Slots::None if inside => slots.clear(),
            Slots::None => {}
            Slots::One(one) => slots.retain(|slot| (slot == one) == inside),
            Slots::Run(first, last) => slots.retain(|slot| (first..=last).contains(&slot) == inside),
        }
    }

    /// Bytes elsewhere.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Slots::List(list) => size_of::<Vec<u32>>() + list.capacity() * 4,
            Slots::Runs(runs) => size_of::<Runs>() + runs.runs.capacity() * 8,
            _ => 0,
        }
    }

    fn each_run(&self, mut each: impl FnMut(u32, u32)) {
        match self {
            Slots::None => {}
            Slots::One(one) => each(*one, *one),
            Slots::Run(first, last) => each(*first, *last),
            Slots::List(list) => list.iter().for_each(|slot| each(*slot, *slot)),
            Slots::Runs(runs) => runs.runs.iter().for_each(|(first, last)| each(*first, *last)),
        }
    }
}

impl Runs {
    fn insert(&mut self, slot: u32) {
        let at = self.runs.partition_point(|(_, last)| *last < slot);
        if self.runs.get(at).is_some_and(|(first, _)| *first <= slot) {
            return;
        }
        self.len += 1;
        let before = at > 0 && self.runs[at - 1].1 + 1 == slot;
        let after = self.runs.get(at).is_some_and(|(first, _)| *first == slot + 1);
        match (before, after) {
            (true, true) => {
                self.runs[at - 1].1 = self.runs[at].1;
                self.runs.remove(at);
            }
            (true, false) => self.runs[at - 1].1 = slot,
            (false, true) => self.runs[at].0 = slot,
            (false, false) => {
                room(&mut self.runs);
                self.runs.insert(at, (slot, slot));
            }
        }
    }

    /// Adds a run behind all others; `end` is not part of it.
    fn push(&mut self, start: u64, end: u64) {
        if start < end {
            self.runs.push((start as u32, (end - 1) as u32));
            self.len += (end - start) as usize;
        }
    }

    fn shortest(self) -> Slots {
        match self.runs.as_slice() {
            [] => Slots::None,
            &[(first, last)] if first == last => Slots::One(first),
            &[(first, last)] => Slots::Run(first, last),
            runs if runs.len() * 2 > self.len => {
                Slots::List(Box::new(runs.iter().flat_map(|(first, last)| *first..=*last).collect()))
            }
            _ => Slots::Runs(Box::new(self)),
        }
    }
}

fn room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / GROWTH).max(LEAST));
    }
}

fn count_runs(list: &[u32]) -> usize {
    1 + list.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count()
}

fn runs_of(list: &[u32]) -> Vec<(u32, u32)> {
    list.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run[run.len() - 1])).collect()
}

/// Takes those of `out`, ascending, from `slots`.
pub(crate) fn subtract(slots: &mut Vec<u32>, out: &[u32]) {
    let mut rest = out;
    slots.retain(|slot| {
        // Step by step: what goes is mostly far less than what is gone through.
        while let [first, tail @ ..] = rest
            && first < slot
        {
            rest = tail;
        }
        rest.first() != Some(slot)
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = (bool, u32, u32)> {
        // Neighbours, steps and anything.
        (prop::bool::weighted(0.8), prop_oneof![0u32..40, (0u32..60).prop_map(|n| n * 3)], 1u32..12)
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec(step(), 0..120), probe in prop::collection::btree_set(0u32..200, 0..60)) {
            assert_eq!(size_of::<Slots>(), 16);
            let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
            for (add, from, n) in steps {
                let some: Vec<u32> = (from..from + n).collect();
                match add {
                    true => some.iter().for_each(|slot| { slots.insert(*slot); model.insert(*slot); }),
                    false => { slots.remove(&some); some.iter().for_each(|slot| { model.remove(slot); }) }
                }
                prop_assert_eq!(slots.to_vec(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(slots.len(), model.len());
                for inside in [true, false] {
                    let mut kept: Vec<u32> = probe.iter().copied().collect();
                    slots.filter(&mut kept, inside);
                    let wanted: Vec<u32> = probe.iter().copied().filter(|s| model.contains(s) == inside).collect();
                    prop_assert_eq!(kept, wanted);
                }
            }
        }
    }

    #[test]
    fn neighbours_take_no_room_and_strides_little() {
        let (mut run, mut stride, mut both) = (Slots::default(), Slots::default(), Slots::default());
        for slot in 0..100_000 {
            run.insert(slot);
            if slot % 20 == 0 {
                stride.insert(slot);
            }
            if slot % 100 < 50 {
                both.insert(slot);
            }
        }
        assert_eq!(run.bytes(), 0);
        assert!(stride.bytes() < 5000 * 5, "{}", stride.bytes());
        assert!(both.bytes() < 1000 * 10, "{}", both.bytes());
    }
}
