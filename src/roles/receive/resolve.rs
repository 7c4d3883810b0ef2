//! A plain remote-write body into a batch, series by series, each recognised by its raw label bytes if it was met
//! before.
//!
//! Three ways, the next where the one before fails: the series that came after the last one the time before;
//! a look-up by label bytes; a full parse, as [`crate::decode`] does it without this. All three give the same
//! rows for any bytes.
//!
//! # Cost
//! A predicted series costs one hash over its label bytes and the walk over its samples, which go straight into
//! the batch. Nothing is allocated for known series once the buffers have grown.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;

use identity::{Id, Key, Known, Met, Session};
use model::TenantId;
use storage::SeriesHandle;
use wire::WireError;
use wire::remote_write::{DecodedV1, DecodedV2, RequestWalk, SeriesAt, canonical_labels};

use crate::admit::Version;
use crate::decode::{Carry, Decoded, Reading, Recognise, Room, Ways};
use crate::resolve_v2::{decoded_again, write_labels_v2};
use crate::series;

/// A series that was met before, in a body.
struct Found<'a> {
    known: Known,
    key: Key,
    region: &'a [u8],
}

/// What came of looking for a series.
enum Sought<'a> {
    Found(Found<'a>),
    /// With the bytes that were looked for, and their key.
    Missing(Option<(&'a [u8], Key)>),
}

/// What `plain` is: a request of remote write 1.0, or a stretch of a peer's request, whose fields 1 are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    Request,
    OfPeer,
}

/// Reads all series of `plain` into `decoded`, which is clear.
pub fn resolve(
    tenant: &TenantId,
    plain: &[u8],
    of: Stretch,
    reading: Reading<'_>,
    recognise: Recognise<'_>,
    room: &mut Room,
    decoded: &mut Decoded,
) -> Result<(), WireError> {
    let session = recognise.identities.session(recognise.space, recognise.now);
    let mut walk = match of {
        Stretch::Request => RequestWalk::new(plain, reading.limits, &mut room.columns)?,
        Stretch::OfPeer => RequestWalk::of_peer(plain, reading.limits, &mut room.columns)?,
    };
    let mut last = None;
    let mut ways = Ways::default();
    while let Some(series) = walk.next_series(&mut room.columns)? {
        let found = find(&session, &walk, series, last, &mut ways);
        if let Sought::Found(found) = &found {
            last = Some(found.known.id);
            if take_known(&walk, series, found, reading, recognise.labels, room, decoded)? {
                continue;
            }
        }
        ways.parse += 1;
        let Room { columns, labels, .. } = room;
        let Some(series) = walk.read(series, columns)?.cloned() else { continue };
        if series::take(tenant, reading, columns, &series, plain, labels, decoded, Version::V1) {
            let region = series.raw_labels();
            let bytes = &plain[region.clone()];
            let key = match found {
                // The same stretch, in one piece: it has been hashed.
                Sought::Missing(Some((sought, key))) if std::ptr::eq(sought, bytes) => key,
                _ => session.key(bytes),
            };
            let row = decoded.batch.series().last().map_or(0, |row| row.hash);
            let id = match found {
                Sought::Found(found) if found.key == key => Some(found.known.id),
                // Found, but with more labels behind the samples: then it is somebody else.
                _ => None,
            };
            decoded.met.push(Met { id, key, len: region.len() as u32, hash: row });
            decoded.regions.push(region.start as u32..region.end as u32);
        }
    }
    decoded.ways = ways;
    Ok(())
}

#[inline]
fn find<'a>(
    session: &Session<'_>,
    walk: &RequestWalk<'a>,
    series: SeriesAt,
    last: Option<Id>,
    ways: &mut Ways,
) -> Sought<'a> {
    if let Some(expected) = last.and_then(|last| session.expected(last))
        && let Some(region) = walk.predicted(series, expected.label_bytes())
    {
        let key = session.key(region);
        if let Some(known) = session.confirm(expected, key) {
            ways.hint += 1;
            return Sought::Found(Found { known, key, region });
        }
    }
    let Some(region) = walk.labels(series) else { return Sought::Missing(None) };
    let key = session.key(region);
    let Some(known) = session.find(key) else { return Sought::Missing(Some((region, key))) };
    ways.probe += 1;
    if let Some(last) = last {
        session.link(last, known.id);
    }
    Sought::Found(Found { known, key, region })
}

/// Takes a known series into the batch; false where it has something that wants a full parse.
#[inline]
fn take_known(
    walk: &RequestWalk<'_>,
    series: SeriesAt,
    found: &Found<'_>,
    reading: Reading<'_>,
    with_labels: Carry<'_>,
    room: &mut Room,
    decoded: &mut Decoded,
) -> Result<bool, WireError> {
    let batch = &mut decoded.batch;
    let before = batch.samples().len();
    if !walk.samples(series, found.region.len(), batch.open())? {
        batch.abandon();
        return Ok(false);
    }
    if batch.samples().len() == before {
        return Ok(true);
    }
    let mut handle = found.known.handle.map(SeriesHandle::from_bits);
    room.labels.clear();
    if !with_labels.wants(found.known.hash, handle.is_some()) {
        // Whoever has no name for it asks the batch's source for its labels.
        handle = handle.or(Some(SeriesHandle::NOWHERE));
    } else if !write_labels(found.region, reading, &mut room.region, &mut room.labels) {
        batch.abandon();
        return Ok(false);
    }
    batch.close(&room.labels, found.known.hash, handle);
    let Found { known, key, region } = found;
    decoded.met.push(Met { id: Some(known.id), key: *key, len: region.len() as u32, hash: known.hash });
    decoded.regions.push(walk.place(series, region.len()));
    Ok(true)
}

/// Labels of a batch's rows that came without them, from the body that they came in.
pub struct LabelsOf<'a> {
    pub plain: &'a [u8],
    pub regions: &'a [Range<u32>],
    pub reading: Reading<'a>,
    by_symbols: bool,
    room: RefCell<DecodedV1>,
    /// The body once more, for the first who asks.
    again: OnceCell<DecodedV2>,
}

impl<'a> LabelsOf<'a> {
    /// `regions` and `by_symbols` are those of the [`Decoded`].
    pub fn new(
        plain: &'a [u8],
        regions: &'a [Range<u32>],
        by_symbols: bool,
        reading: Reading<'a>,
    ) -> LabelsOf<'a> {
        LabelsOf { plain, regions, reading, by_symbols, room: RefCell::default(), again: OnceCell::new() }
    }

    /// Writes the canonical labels of a row; false if it has none.
    pub fn write(&self, row: u32, out: &mut Vec<u8>) -> bool {
        if self.by_symbols {
            let decoded = self.again.get_or_init(|| decoded_again(self.plain, self.reading.limits));
            let series = self.regions.get(row as usize).map(|region| region.start as usize);
            return series
                .is_some_and(|series| write_labels_v2(decoded, series, self.plain, self.reading, out));
        }
        let region = self.regions.get(row as usize).map(|r| r.start as usize..r.end as usize);
        let Some(region) = region.and_then(|region| self.plain.get(region)) else { return false };
        let mut room = self.room.borrow_mut();
        write_labels(region, self.reading, &mut room, out)
    }
}

/// Writes the labels that a region stands for, relabelled; false if it stands for no series.
pub fn write_labels(region: &[u8], reading: Reading<'_>, room: &mut DecodedV1, out: &mut Vec<u8>) -> bool {
    canonical_labels(region, reading.limits, room, out).is_ok() && reading.relabel(out) == Ok(true)
}

#[cfg(test)]
mod tests {
    use identity::Identities;
    use proptest::prelude::*;
    use runtime::World;
    use wire::remote_write::Limits;

    use super::*;
    use crate::decode::decode_v1;
    use crate::proof::Door;

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let name = prop_oneof![3 => Just("__name__".to_owned()), 2 => "[a-c_]{0,2}"];
        let text = prop_oneof![Just("up".to_owned()), "[a-c]{0,2}", "é{0,2}", Just("x".repeat(130))];
        let labels = proptest::collection::vec((name, text), 0..4);
        let sample = (any::<i64>(), any::<u64>())
            .prop_map(|(timestamp, bits)| model::Sample { timestamp, value: f64::from_bits(bits) });
        let series = (labels, proptest::collection::vec(sample, 0..3));
        proptest::collection::vec(series, 0..6).prop_map(|all| {
            let mut body = Vec::new();
            let borrowed = all.iter().map(|(labels, samples)| {
                (labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), samples.iter().copied())
            });
            wire::remote_write::encode_v1(borrowed, &mut body);
            body
        })
    }

    proptest! {
        #[test]
        fn recognised_or_parsed_the_rows_are_the_same(
            requests in proptest::collection::vec((request(), any::<bool>(), any::<bool>(), any::<bool>()), 1..4),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            relabelled in any::<bool>(),
        ) {
            let door = if relabelled { Door::relabelling() } else { Door::new() };
            for at in &order {
                let (body, a, labels, handles) = at.get(&requests);
                door.check(if *a { "a" } else { "b" }, body, *labels, *handles);
            }
        }

        #[test]
        fn damage_is_seen_alike(
            body in request(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
        ) {
            let door = Door::new();
            door.check("a", &body, false, true);
            let mut damaged = [body.clone(), body.clone()].concat();
            if !damaged.is_empty() {
                let at = at.index(damaged.len());
                damaged[at] = byte;
                damaged.truncate(damaged.len() - cut.index(damaged.len()) / 4);
            }
            for _ in 0..2 {
                door.check("a", &damaged, false, true);
            }
        }
    }

    #[test]
    fn the_second_time_series_are_predicted() {
        let door = Door::new();
        let mut body = Vec::new();
        let sample = model::Sample { timestamp: 5, value: 1.0 };
        let names: Vec<String> = (0..10).map(|n| format!("m{n}")).collect();
        let series = names.iter().map(|name| ([("__name__", name.as_str()), ("a", "b")], [sample]));
        wire::remote_write::encode_v1(series.clone(), &mut body);
        assert_eq!(door.check("a", &body, false, true), Ways { parse: 10, ..Ways::default() });
        assert_eq!(door.check("a", &body, false, true), Ways { hint: 9, probe: 1, parse: 0 });
        // Of another tenant nothing is known.
        assert_eq!(door.check("b", &body, false, true), Ways { parse: 10, ..Ways::default() });
        // One that is left out costs one look-up.
        let mut body = Vec::new();
        wire::remote_write::encode_v1(series.enumerate().filter(|(n, _)| *n != 4).map(|(_, s)| s), &mut body);
        assert_eq!(door.check("a", &body, false, true), Ways { hint: 7, probe: 2, parse: 0 });
        assert_eq!(door.check("a", &body, false, true), Ways { hint: 8, probe: 1, parse: 0 });
    }

    #[test]
    fn known_series_cost_no_allocation() {
        use storage::{Append, Known, Verdict};

        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let settings = tsdb::Settings { dir: dir.path().to_owned(), ..tsdb::Settings::default() };
        let engine = tsdb::Tsdb::open(world.clone(), settings).unwrap();
        let tenant = TenantId::new("t").unwrap();
        let identities = Identities::new(identity::Settings::default(), &*world.chance);
        let now = world.clock.now_ms();
        let names: Vec<String> = (0..2000).map(|n| format!("m{n}")).collect();
        let body = |round: i64| {
            let sample = model::Sample { timestamp: now + round, value: 1.0 };
            let series = names.iter().map(|name| ([("__name__", name.as_str()), ("a", "b")], [sample]));
            let mut plain = Vec::new();
            wire::remote_write::encode_v1(series, &mut plain);
            snap::raw::Encoder::new().compress_vec(&plain).unwrap()
        };
        let (mut verdicts, mut learned) = (vec![Verdict::Unavailable; 2000], Vec::new());
        let rows: Vec<u32> = (0..2000).collect();
        let mut round = |n: i64| {
            let body = body(n);
            let (limits, recognise) = (
                Limits::default(),
                Recognise { identities: &identities, space: tenant.as_str(), now, labels: Carry::Unnamed },
            );
            let reading = Reading::within(&limits);
            let mut of_append = 0;
            let all = allocation_counter::measure(|| {
                decode_v1(
                    &tenant,
                    &body,
                    Reading::within(&Limits::default()),
                    Some(recognise),
                    |decoded, plain| {
                        let Decoded { batch, met, regions, .. } = decoded;
                        let labels_of = LabelsOf::new(plain, regions, false, reading);
                        let labels = |row: u32, out: &mut Vec<u8>| labels_of.write(row, out);
                        of_append = allocation_counter::measure(|| {
                            let known = Known { labels: &labels, learned: &mut learned };
                            engine.append_known(&tenant, batch, &rows, now, &mut verdicts, known).unwrap();
                        })
                        .count_total;
                        identities.learn(tenant.as_str(), met, &learned, false, now);
                        learned.clear();
                    },
                )
                .unwrap();
            });
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Stored));
            (all.count_total - of_append, of_append)
        };
        for n in 0..3 {
            round(n);
        }
        // Now and then all series grow their chunks at once; in between there is nothing to allocate for.
        let rounds: Vec<(u64, u64)> = (3..12).map(round).collect();
        assert!(rounds.iter().all(|(resolving, _)| *resolving < 20), "{rounds:?}");
        assert!(rounds.iter().any(|(_, appending)| *appending < 20), "{rounds:?}");
    }
}
