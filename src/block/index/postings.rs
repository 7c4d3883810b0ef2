//! Postings: the series that have one label pair, as ascending numbers, and sets of them.
//!
//! # Cost
//! A list is checked once and then read in place. Intersection gallops, so it costs the shorter list times the
//! logarithm of the gaps; union sorts the concatenation.

use bytes::Bytes;

use crate::Error;
use crate::index::cursor::{Cursor, checked_section};

/// A checked list over its own bytes: big-endian numbers, ascending. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Postings {
    numbers: Bytes,
}

/// Reads the list that starts at `bytes[0]` (`u32 length | u32 count | numbers | CRC`); more bytes may follow it.
pub fn decode_postings(bytes: &Bytes) -> Result<Postings, Error> {
    let body = checked_section(bytes, "postings")?;
    let mut cursor = Cursor::new(body);
    let count = cursor.u32().map_err(|e| e.within("postings"))?;
    if cursor.rest().len() as u64 != u64::from(count) * 4 {
        return Err(Error::corrupt(format!(
            "postings: {count} series announced in {} bytes",
            cursor.rest().len()
        )));
    }
    let postings = Postings { numbers: bytes.slice_ref(cursor.rest()) };
    if postings.iter().zip(postings.iter().skip(1)).any(|(a, b)| a >= b) {
        return Err(Error::corrupt("postings: series do not ascend"));
    }
    Ok(postings)
}

/// Bytes that a list takes, from its first four.
pub fn list_len(head: &[u8]) -> Result<usize, Error> {
    Ok(Cursor::new(head).u32()? as usize + 8)
}

impl Postings {
    pub fn len(&self) -> usize {
        self.numbers.len() / 4
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub fn get(&self, at: usize) -> Option<u32> {
        let four = self.numbers.get(at * 4..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*four))
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.numbers.as_chunks::<4>().0.iter().map(|four| u32::from_be_bytes(*four))
    }

    /// First position at or behind `from` whose number is at least `least`.
    fn seek(&self, from: usize, least: u32) -> usize {
        let at = |i: usize| self.get(i).unwrap_or(u32::MAX);
        let (mut low, mut step) = (from, 1);
        while low + step < self.len() && at(low + step) < least {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if at(middle) < least {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Keeps of `numbers` (ascending) those that are in `list`, or those that are not.
pub fn retain(numbers: &mut Vec<u32>, list: &Postings, present: bool) {
    let mut at = 0;
    numbers.retain(|&number| {
        at = list.seek(at, number);
        (list.get(at) == Some(number)) == present
    });
}

/// Keeps of `numbers` those that are in `other`, or those that are not; both ascend.
pub fn retain_sorted(numbers: &mut Vec<u32>, other: &[u32], present: bool) {
    let mut at = 0;
    numbers.retain(|&number| {
        at += other[at..].partition_point(|&n| n < number);
        (other.get(at) == Some(&number)) == present
    });
}

/// The union of lists, ascending and unique.
pub fn union(lists: &[Postings]) -> Vec<u32> {
    let mut out = Vec::with_capacity(lists.iter().map(Postings::len).sum());
    for list in lists {
        out.extend(list.iter());
    }
    if lists.len() > 1 {
        // Runs that ascend already are what the standard stable sort merges best.
        out.sort();
        out.dedup();
    }
    out
}

/// Appends a list in the file's form.
pub(crate) fn encode(out: &mut Vec<u8>, numbers: impl ExactSizeIterator<Item = u32>) {
    out.extend_from_slice(&(numbers.len() as u32 * 4 + 4).to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&(numbers.len() as u32).to_be_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let sum = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn list(numbers: &BTreeSet<u32>) -> Postings {
        let mut out = Vec::new();
        encode(&mut out, numbers.iter().copied().collect::<Vec<_>>().into_iter());
        out.extend_from_slice(b"behind");
        assert_eq!(list_len(&out).unwrap(), out.len() - 6);
        decode_postings(&out.into()).unwrap()
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets(a in prop::collection::btree_set(0u32..200, 0..60),
                               b in prop::collection::btree_set(0u32..200, 0..200)) {
            let (la, lb) = (list(&a), list(&b));
            let mut both = la.iter().collect::<Vec<_>>();
            retain(&mut both, &lb, true);
            prop_assert_eq!(&both, &a.intersection(&b).copied().collect::<Vec<_>>());
            let mut rest = la.iter().collect::<Vec<_>>();
            retain(&mut rest, &lb, false);
            prop_assert_eq!(&rest, &a.difference(&b).copied().collect::<Vec<_>>());
            let any = union(&[la, lb]);
            prop_assert_eq!(&any, &a.union(&b).copied().collect::<Vec<_>>());
            let mut again = any.clone();
            retain_sorted(&mut again, &rest, false);
            prop_assert_eq!(again, b.iter().copied().collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_postings(&bytes.into());
        }
    }
}
