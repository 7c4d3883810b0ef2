//! Thanos's ketama: a thousand sections per endpoint on a circle of 64-bit hashes, each section with its
//! replicas worked out beforehand.
//!
//! The circle is `consistent_hash_ring`'s: every section is one node of it with one place. It is walked once
//! into a sorted table; lookups are a binary search in that table and never reach the crate, whose own
//! replica walk re-hashes keys and allocates.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};

use consistent_hash_ring::RingBuilder;
use xxhash_rust::xxh64::Xxh64;

use crate::{Endpoint, Error};

/// Sections that each endpoint owns, as in Thanos. Part of the placement: never change it.
pub const SECTIONS_PER_NODE: u32 = 1000;

/// Section ends in ascending order, and `copies` indices of endpoints for each.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    ends: Vec<u64>,
    replicas: Vec<u16>,
    copies: usize,
}

impl Table {
    /// The replicas of the first section that ends at or after `hash`, else of the first of all.
    pub(crate) fn replicas(&self, hash: u64) -> &[u16] {
        let at = self.ends.partition_point(|end| *end < hash);
        let at = if at == self.ends.len() { 0 } else { at };
        &self.replicas[at * self.copies..(at + 1) * self.copies]
    }

    /// Turns the endpoint indices of the ring into those of a list that several rings share.
    pub(crate) fn rename(&mut self, names: &[u16]) {
        for replica in &mut self.replicas {
            *replica = names[usize::from(*replica)];
        }
    }

    pub(crate) fn sections(&self) -> impl Iterator<Item = (u64, &[u16])> {
        self.ends.iter().copied().zip(self.replicas.chunks_exact(self.copies))
    }
}

/// One section of an endpoint: `address:number`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Section<'a> {
    address: &'a str,
    endpoint: u16,
    number: u32,
}

impl Hash for Section<'_> {
    /// Exactly the bytes that Thanos hashes. (`str`'s own `hash` would add a terminator.)
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.address.as_bytes());
        state.write(b":");
        state.write(self.number.to_string().as_bytes());
    }
}

/// xxhash64, seed 0, over whatever is written. Integers are hashed for real as well: when the circle inserts
/// a section, it re-hashes its place and removes what lies there, which under an identity would be the
/// section itself.
#[derive(Clone, Copy, Default)]
struct Xxh64Build;

impl BuildHasher for Xxh64Build {
    type Hasher = Xxh64;

    fn build_hasher(&self) -> Xxh64 {
        Xxh64::new(0)
    }
}

/// Works out the table for `copies` replicas. Endpoints must be as many at least, with unique addresses.
pub(crate) fn build(endpoints: &[Endpoint], copies: usize) -> Result<Table, Error> {
    let mut sections: Vec<(u64, Section<'_>)> =
        Vec::with_capacity(endpoints.len() * SECTIONS_PER_NODE as usize);
    for (at, endpoint) in endpoints.iter().enumerate() {
        for number in 1..=SECTIONS_PER_NODE {
            let section = Section { address: &endpoint.address, endpoint: at as u16, number };
            sections.push((Xxh64Build.hash_one(section), section));
        }
    }
    // In order of their places, the circle appends each at its end instead of moving all behind it.
    sections.sort_by_key(|(hash, _)| *hash);
    if let Some(pair) = sections.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(collision(&pair[0].1, &pair[1].1));
    }
    let circle = RingBuilder::new(Xxh64Build).vnodes(1).nodes_iter(sections.iter().map(|(_, s)| *s)).build();
    if circle.vnodes() != sections.len() {
        // A section's re-hashed place met another section: possible once in 2^50 rings or so.
        return Err(Error::new("two sections of the ring collide; change the spelling of an address"));
    }
    // The last range wraps around to the first section and is not a section of its own.
    let walked: Vec<(u64, u16)> = circle
        .resident_ranges()
        .take(sections.len())
        .map(|range| (*range.keys().end(), range.node().endpoint))
        .collect();
    let owners: Vec<u16> = walked.iter().map(|(_, owner)| *owner).collect();
    let mut replicas = Vec::with_capacity(owners.len() * copies);
    let mut walk = Walk::new(endpoints);
    for at in 0..owners.len() {
        walk.choose(&owners, at, copies, &mut replicas);
    }
    Ok(Table { ends: walked.into_iter().map(|(end, _)| end).collect(), replicas, copies })
}

fn collision(a: &Section<'_>, b: &Section<'_>) -> Error {
    Error::new(format!(
        "endpoints {:?} and {:?} collide on the ring (sections {} and {}); change the spelling of one of them",
        a.address, b.address, a.number, b.number
    ))
}

/// Chooses replicas for one section after another; holds the scratch that this needs.
struct Walk {
    zone_of: Vec<usize>,
    zone_size: Vec<usize>,
    /// Replicas chosen in each zone for the section at hand.
    spread: Vec<usize>,
}

impl Walk {
    fn new(endpoints: &[Endpoint]) -> Walk {
        let mut names = BTreeMap::new();
        let mut zone_size: Vec<usize> = Vec::new();
        let mut zone_of = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let zone = *names.entry(endpoint.zone.as_str()).or_insert(zone_size.len());
            if zone == zone_size.len() {
                zone_size.push(0);
            }
            zone_size[zone] += 1;
            zone_of.push(zone);
        }
        Walk { zone_of, spread: vec![0; zone_size.len()], zone_size }
    }

    /// Goes clockwise from section `start` and takes each endpoint once, but none of a zone that already
    /// holds more replicas than the least occupied zone. A zone whose endpoints are all taken no longer
    /// holds the others back (Thanos would walk in circles there for ever).
    fn choose(&mut self, owners: &[u16], start: usize, copies: usize, out: &mut Vec<u16>) {
        let first = out.len();
        self.spread.fill(0);
        for step in 0.. {
            if out.len() - first == copies {
                return;
            }
            let owner = owners[(start + step) % owners.len()];
            if out[first..].contains(&owner) {
                continue;
            }
            let zone = self.zone_of[usize::from(owner)];
            let open = self.spread.iter().zip(&self.zone_size).filter(|(taken, size)| taken < size);
            let least = open.map(|(taken, _)| *taken).min().unwrap_or(0);
            if self.spread[zone] > least {
                continue;
            }
            self.spread[zone] += 1;
            out.push(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh64::xxh64;

    use super::*;

    fn endpoints(spec: &[(&str, &str)]) -> Vec<Endpoint> {
        let one = |(address, zone): &(&str, &str)| Endpoint {
            address: (*address).to_owned(),
            capnproto_address: String::new(),
            zone: (*zone).to_owned(),
        };
        spec.iter().map(one).collect()
    }

    /// Every section, computed without the crate, is where the table has it.
    #[test]
    fn sections_stand_where_thanos_puts_them() {
        let endpoints = endpoints(&[("a:10901", ""), ("b:10901", ""), ("c:10901", "")]);
        let table = build(&endpoints, 1).unwrap();
        let mut direct: Vec<(u64, u16)> = Vec::new();
        for (at, endpoint) in endpoints.iter().enumerate() {
            for i in 1..=1000 {
                direct.push((xxh64(format!("{}:{i}", endpoint.address).as_bytes(), 0), at as u16));
            }
        }
        direct.sort_unstable();
        assert_eq!(table.sections().map(|(end, r)| (end, r[0])).collect::<Vec<_>>(), direct);
        for (end, owner) in &direct {
            assert_eq!(table.replicas(*end), [*owner]);
        }
        assert_eq!(table.replicas(u64::MAX), [direct[0].1]);
        assert_eq!(table.replicas(0), [direct[0].1]);
    }

    #[test]
    fn replicas_are_distinct_and_spread_over_zones() {
        let endpoints = endpoints(&[("a:1", "x"), ("b:1", "x"), ("c:1", "y"), ("d:1", "y"), ("e:1", "z")]);
        for (copies, zones) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 3)] {
            for (_, replicas) in build(&endpoints, copies).unwrap().sections() {
                let distinct: std::collections::BTreeSet<_> = replicas.iter().collect();
                let in_zones: std::collections::BTreeSet<_> =
                    replicas.iter().map(|r| &endpoints[usize::from(*r)].zone).collect();
                assert_eq!((distinct.len(), in_zones.len()), (copies, zones));
            }
        }
    }

    /// One endpoint in one zone and three in the other: four replicas exist, and are found.
    #[test]
    fn uneven_zones_end() {
        let endpoints = endpoints(&[("a:1", "x"), ("b:1", "y"), ("c:1", "y"), ("d:1", "y")]);
        assert!(build(&endpoints, 4).unwrap().sections().all(|(_, replicas)| replicas.len() == 4));
    }

    /// An endpoint more takes its share, and nothing moves between those that stay.
    #[test]
    fn growth_moves_only_to_the_newcomer() {
        let four = endpoints(&[("a:1", ""), ("b:1", ""), ("c:1", ""), ("d:1", "")]);
        let (old, new) = (build(&four[..3], 1).unwrap(), build(&four, 1).unwrap());
        let keys = (0..100_000u64).map(|i| xxh64(&i.to_le_bytes(), 7));
        let mut moved = 0;
        for key in keys {
            if old.replicas(key) != new.replicas(key) {
                assert_eq!(new.replicas(key), [3]);
                moved += 1;
            }
        }
        assert!((23_000..27_000).contains(&moved), "{moved} of 100000");
    }

    /// Copies that get a new home: those that come take no more than a tenth above their share, those that go leave no more.
    /// Who takes the place of another under its own name is one that goes and one that comes.
    #[test]
    fn a_change_moves_hardly_more_copies_than_it_must_t18() {
        const KEYS: u64 = 30_000;
        let name = |n: &usize| format!("receive-{n}:10901");
        let ring = |members: &[usize]| {
            let names: Vec<String> = members.iter().map(name).collect();
            let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
            build(&endpoints(&pairs), 3).unwrap()
        };
        let moved = |before: &[usize], after: &[usize]| {
            let (old, new) = (ring(before), ring(after));
            let keys = (0..KEYS).map(|i| xxh64(&i.to_le_bytes(), 7));
            let of = |key| {
                let had: Vec<usize> = old.replicas(key).iter().map(|at| before[usize::from(*at)]).collect();
                new.replicas(key).iter().filter(|at| !had.contains(&after[usize::from(**at)])).count()
            };
            keys.map(of).sum::<usize>() as f64 / (3 * KEYS) as f64
        };
        let seven: Vec<usize> = (0..7).collect();
        for (before, after, ideal) in [
            (&seven[..3], &seven[..5], 2.0 / 5.0),
            (&seven[..5], &seven[..6], 1.0 / 6.0),
            (&seven[..6], &seven[1..6], 1.0 / 6.0),
            (&seven[..7], &seven[..5], 2.0 / 7.0),
            (&[0, 1, 2, 3, 4][..], &[0, 1, 2, 3, 5][..], 2.0 / 5.0),
        ] {
            let moved = moved(before, after);
            assert!(moved <= 1.1 * ideal, "{before:?} to {after:?} moves {moved}, {ideal} would do");
        }
    }
}
