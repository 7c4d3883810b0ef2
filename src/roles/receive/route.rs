//! Which rows of a batch go to which endpoint: the ring asked once per series, or the two rings in the middle of a change.

use hashring::{EndpointIndex, Ring};
use storage::WriteBatch;

use crate::quorum::Sides;

/// The rows of one batch for one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub endpoint: EndpointIndex,
    /// From 0: which copy these rows are.
    pub copy: usize,
    /// Indices into `batch.series()`, ascending.
    pub rows: Vec<u32>,
    /// Of each row, in which of two rings the endpoint is its replica; empty where there is one ring.
    pub sides: Vec<Sides>,
}

impl Share {
    /// Leaves the rows out that are not `wanted`.
    pub fn keep(&mut self, wanted: impl Fn(u32) -> bool) {
        let rows = &self.rows;
        let mut at = 0;
        self.sides.retain(|_| {
            at += 1;
            wanted(rows[at - 1])
        });
        self.rows.retain(|row| wanted(*row));
    }
}

/// Splits a batch by endpoint, and by copy where `by_copy` says that the endpoint wants to be told which copy
/// it stores (a Thanos receiver looks up the place of exactly that copy). Shares come in the order of the
/// endpoints.
pub fn split(
    batch: &WriteBatch,
    ring: &Ring,
    endpoints: usize,
    by_copy: impl Fn(EndpointIndex) -> bool,
) -> Vec<Share> {
    let copies = ring.replicas(0).len();
    let owners = ring.replicas(0);
    if copies == ring.len() && !owners.iter().any(|endpoint| by_copy(*endpoint)) {
        // Everybody has everything.
        let all: Vec<u32> = (0..batch.series().len() as u32).collect();
        let mut owners = owners.to_vec();
        owners.sort_unstable();
        let share = |endpoint| Share { endpoint, copy: 0, rows: all.clone(), sides: Vec::new() };
        return owners.into_iter().filter(|_| !all.is_empty()).map(share).collect();
    }
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); endpoints * copies];
    for (row, series) in batch.series().iter().enumerate() {
        for (copy, endpoint) in ring.replicas(series.hash).iter().enumerate() {
            let copy = if by_copy(*endpoint) { copy } else { 0 };
            rows[usize::from(*endpoint) * copies + copy].push(row as u32);
        }
    }
    let shares = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    let endpoint = |at: usize| (at / copies) as EndpointIndex;
    shares
        .map(|(at, rows)| Share { endpoint: endpoint(at), copy: at % copies, rows, sides: Vec::new() })
        .collect()
}

/// Splits a batch among the replicas of an old ring and of a new one, each row once to each of them. `old_place` says
/// where the old ring's endpoints stand among the `endpoints` of both, which begin with the new one's.
pub fn split_joint(
    batch: &WriteBatch,
    (old, old_place): (&Ring, &[EndpointIndex]),
    new: &Ring,
    endpoints: usize,
) -> Vec<Share> {
    let mut shares: Vec<(Vec<u32>, Vec<Sides>)> = vec![Default::default(); endpoints];
    let mut add = |endpoint: EndpointIndex, row: u32, side: Sides| {
        let (rows, sides) = &mut shares[usize::from(endpoint)];
        match (rows.last(), sides.last_mut()) {
            (Some(last), Some(known)) if *last == row => *known = known.and(side),
            _ => {
                rows.push(row);
                sides.push(side);
            }
        }
    };
    for (row, series) in batch.series().iter().enumerate() {
        for endpoint in old.replicas(series.hash) {
            add(old_place[usize::from(*endpoint)], row as u32, Sides::OLD);
        }
        for endpoint in new.replicas(series.hash) {
            add(*endpoint, row as u32, Sides::NEW);
        }
    }
    let shares = shares.into_iter().enumerate().filter(|(_, (rows, _))| !rows.is_empty());
    shares.map(|(at, (rows, sides))| Share { endpoint: at as EndpointIndex, copy: 0, rows, sides }).collect()
}

#[cfg(test)]
mod tests {
    use hashring::{Algorithm, Document, Rings};
    use model::{Labels, Sample};

    use super::*;

    fn batch(series: usize) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for n in 0..series {
            let labels = Labels::from_pairs([("__name__", "up"), ("n", &n.to_string())]).unwrap();
            batch.push(labels.as_bytes(), labels.placement_hash("t"), [Sample { timestamp: 1, value: 1.0 }]);
        }
        batch
    }

    fn rings(copies: usize) -> Rings {
        let text = r#"[{"endpoints": ["a:1", "b:1", "c:1", "d:1"]}]"#;
        Rings::build(&Document::parse(text).unwrap(), copies, Algorithm::Ketama).unwrap()
    }

    #[test]
    fn every_row_goes_to_as_many_endpoints_as_there_are_copies() {
        let (batch, rings) = (batch(500), rings(3));
        let ring = rings.resolve("t").unwrap();
        let shares = split(&batch, &ring, 4, |_| false);
        assert_eq!(shares.len(), 4);
        let mut seen = vec![0; 500];
        for share in &shares {
            assert!(share.rows.is_sorted());
            for row in &share.rows {
                seen[*row as usize] += 1;
                assert!(ring.replicas(batch.series()[*row as usize].hash).contains(&share.endpoint));
            }
        }
        assert!(seen.iter().all(|n| *n == 3));
    }

    #[test]
    fn with_as_many_copies_as_endpoints_each_has_every_row() {
        let (batch, rings) = (batch(50), rings(4));
        let shares = split(&batch, &rings.resolve("t").unwrap(), 4, |_| false);
        let endpoints: Vec<_> = shares.iter().map(|share| share.endpoint).collect();
        assert_eq!(endpoints, [0, 1, 2, 3]);
        assert!(shares.iter().all(|share| share.rows.len() == 50 && share.copy == 0));
        assert!(split(&WriteBatch::default(), &rings.resolve("t").unwrap(), 4, |_| false).is_empty());
    }

    #[test]
    fn by_copy_the_rows_of_each_copy_are_apart() {
        let (batch, rings) = (batch(500), rings(3));
        let ring = rings.resolve("t").unwrap();
        for share in split(&batch, &ring, 4, |endpoint| endpoint == 1) {
            assert!(share.endpoint == 1 || share.copy == 0);
            if share.endpoint == 1 {
                for row in share.rows {
                    assert_eq!(ring.replicas(batch.series()[row as usize].hash)[share.copy], 1);
                }
            }
        }
    }

    /// Two rings that have none, some or all of their members in common.
    #[test]
    fn in_a_change_every_row_goes_to_the_replicas_of_both_rings_once() {
        let batch = batch(500);
        for (old, new) in [
            (["a:1", "b:1", "c:1", "d:1"], ["d:1", "e:1", "a:1", "f:1"]),
            (["a:1", "b:1", "c:1", "d:1"], ["h:1", "e:1", "g:1", "f:1"]),
            (["a:1", "b:1", "c:1", "d:1"], ["d:1", "c:1", "b:1", "a:1"]),
        ] {
            let rings = [old, new].map(|members| {
                let text = format!(r#"[{{"endpoints": {members:?}}}]"#);
                Rings::build(&Document::parse(&text).unwrap(), 3, Algorithm::Ketama).unwrap()
            });
            let mut all: Vec<&str> = new.to_vec();
            all.extend(old.iter().filter(|a| !new.contains(a)));
            let at = |address: &str| all.iter().position(|a| *a == address).unwrap() as u16;
            // As the rings list them, whatever the order of the file.
            let of = |rings: &Rings| rings.endpoints().iter().map(|e| at(&e.address)).collect::<Vec<_>>();
            let (place, order) = (of(&rings[0]), of(&rings[1]));
            assert!(order.is_sorted(), "the new ring's endpoints come first, in their order");
            let [old, new] = rings.each_ref().map(|rings| rings.resolve("t").unwrap());
            let mut seen = vec![Vec::new(); 500];
            for share in split_joint(&batch, (&old, &place), &new, all.len()) {
                assert!(share.rows.is_sorted() && share.rows.len() == share.sides.len());
                for (row, sides) in share.rows.iter().zip(&share.sides) {
                    seen[*row as usize].push((share.endpoint, *sides));
                }
            }
            for (row, mut seen) in seen.into_iter().enumerate() {
                let hash = batch.series()[row].hash;
                let owners = |ring: &Ring, place: &dyn Fn(u16) -> u16| {
                    ring.replicas(hash).iter().map(|e| place(*e)).collect::<Vec<_>>()
                };
                let (olds, news) = (owners(&old, &|e| place[usize::from(e)]), owners(&new, &|e| e));
                let mut want: Vec<(u16, Sides)> = (0..all.len() as u16)
                    .filter_map(|e| match (olds.contains(&e), news.contains(&e)) {
                        (true, true) => Some((e, Sides::BOTH)),
                        (true, false) => Some((e, Sides::OLD)),
                        (false, true) => Some((e, Sides::NEW)),
                        (false, false) => None,
                    })
                    .collect();
                seen.sort_by_key(|(endpoint, _)| *endpoint);
                want.sort_by_key(|(endpoint, _)| *endpoint);
                assert_eq!(seen, want);
            }
        }
    }
}
