//! Which rows of a batch go to which endpoint: the ring asked once per series.

use hashring::{EndpointIndex, Ring};
use storage::WriteBatch;

/// The rows of one batch for one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub endpoint: EndpointIndex,
    /// From 0: which copy these rows are.
    pub copy: usize,
    /// Indices into `batch.series()`, ascending.
    pub rows: Vec<u32>,
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
        let share = |endpoint| Share { endpoint, copy: 0, rows: all.clone() };
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
    shares
        .map(|(at, rows)| Share { endpoint: (at / copies) as EndpointIndex, copy: at % copies, rows })
        .collect()
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
}
