//! A plain body of remote write 2.0 into a batch, series by series, each recognised by its list of symbols if it was met
//! before.
//!
//! A request names each text once. Every symbol is hashed once, and a series is looked for by the hashes of its labels'
//! symbols: no label is read, sorted, checked or copied for a series that is known. Numbers of symbols mean nothing beyond
//! their request and are no part of it.

use identity::{Id, Known, Met, Session};
use model::TenantId;
use storage::SeriesHandle;
use wire::WireError;
use wire::remote_write::{DecodedV2, Limits, Series, decode_v2};

use crate::admit::Version;
use crate::decode::{Decoded, Reading, Recognise, RoomV2, Ways};
use crate::metadata::said;
use crate::series;

/// Reads all series of `plain` into `decoded`, which is clear. Without `recognise` every series is parsed.
pub fn resolve(
    tenant: &TenantId,
    plain: &[u8],
    reading: Reading<'_>,
    recognise: Option<Recognise<'_>>,
    room: &mut RoomV2,
    decoded: &mut Decoded,
) -> Result<(), WireError> {
    decode_v2(plain, reading.limits, &mut room.columns)?;
    let RoomV2 { columns, labels, texts } = room;
    decoded.by_symbols = true;
    let session = recognise.map(|known| known.identities.session(known.space, known.now));
    if let Some(session) = &session {
        texts.clear();
        texts.extend(columns.symbols(plain).map(|text| session.text(text)));
    }
    let (mut last, mut ways) = (None, Ways::default());
    for (at, series) in columns.columns.series().iter().enumerate() {
        let mut met = None;
        if let (Some(session), Some(recognise)) = (&session, recognise) {
            let refs = columns.references(at);
            let key = session.key_of_list(refs, texts);
            // One with a fault is not what its list says.
            let usable = series.fault.is_none() && !refs.is_empty();
            let known = if usable { find(session, key, last, &mut ways) } else { None };
            let len = if usable { refs.len() as u32 } else { 0 };
            met = Some(Met { id: known.map(|known| known.id), key, len, hash: 0 });
            if let Some(known) = known {
                last = Some(known.id);
                if take_known(columns, series, plain, known, reading, recognise, labels, decoded) {
                    if decoded.batch.series().len() > decoded.met.len() {
                        push(decoded, met, at);
                    }
                    continue;
                }
            }
        }
        ways.parse += 1;
        if series::take(tenant, reading, &columns.columns, series, plain, labels, decoded, Version::V2) {
            push(decoded, met, at);
        }
    }
    decoded.ways = ways;
    said(&columns.columns, plain, &mut decoded.said);
    Ok(())
}

/// Notes who the batch's last row is, and which series of the body.
fn push(decoded: &mut Decoded, met: Option<Met>, at: usize) {
    let hash = decoded.batch.series().last().map_or(0, |row| row.hash);
    if let Some(met) = met {
        decoded.met.push(Met { hash, ..met });
        decoded.regions.push(at as u32..at as u32);
    }
}

#[inline]
fn find(session: &Session<'_>, key: identity::Key, last: Option<Id>, ways: &mut Ways) -> Option<Known> {
    if let Some(expected) = last.and_then(|last| session.expected(last))
        && let Some(known) = session.confirm(expected, key)
    {
        ways.hint += 1;
        return Some(known);
    }
    let known = session.find(key)?;
    ways.probe += 1;
    if let Some(last) = last {
        session.link(last, known.id);
    }
    Some(known)
}

/// Takes a known series into the batch; false where its labels are wanted and cannot be had.
fn take_known(
    columns: &DecodedV2,
    series: &Series,
    plain: &[u8],
    known: Known,
    reading: Reading<'_>,
    recognise: Recognise<'_>,
    labels: &mut Vec<u8>,
    decoded: &mut Decoded,
) -> bool {
    let mut handle = known.handle.map(SeriesHandle::from_bits);
    labels.clear();
    if !recognise.labels.wants(known.hash, handle.is_some()) {
        // Whoever has no name for it asks the batch's source for its labels.
        handle = handle.or(Some(SeriesHandle::NOWHERE));
    } else if columns.columns.canonical(series, plain, labels).is_err() || reading.relabel(labels) != Ok(true)
    {
        return false;
    }
    let columns = &columns.columns;
    let batch = &mut decoded.batch;
    batch.open().extend_from_slice(columns.samples_of(series));
    if columns.has_starts() {
        batch.push_starts(series.samples().map(|at| columns.start_timestamp(at)));
    }
    if series.histograms > 0 || series.exemplars > 0 {
        let shown = || series::shown(columns.labels(series, plain));
        series::take_more(columns, series, plain, batch, &mut decoded.aside, Version::V2, &shown);
    }
    if batch.is_open() {
        batch.close(labels, known.hash, handle);
    }
    true
}

/// A body that was read before.
pub fn decoded_again(plain: &[u8], limits: &Limits) -> DecodedV2 {
    let mut out = DecodedV2::default();
    // What is missing after an error has no labels.
    if decode_v2(plain, limits, &mut out).is_err() {
        return DecodedV2::default();
    }
    out
}

/// Writes the labels of a series of a body, relabelled; false if it has none.
pub fn write_labels_v2(
    decoded: &DecodedV2,
    series: usize,
    plain: &[u8],
    reading: Reading<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let columns = &decoded.columns;
    columns.series().get(series).is_some_and(|series| columns.canonical(series, plain, out).is_ok())
        && reading.relabel(out) == Ok(true)
}

#[cfg(test)]
mod tests {
    use model::{Native, Sample};
    use proptest::prelude::*;
    use wire::remote_write::RequestV2;

    use super::*;
    use crate::proof::Door;

    /// Labels, floats, and whether there is more.
    type One = (Vec<(String, String)>, Vec<(i64, u64, i64)>, bool);

    fn series() -> impl Strategy<Value = One> {
        let name = prop_oneof![3 => Just("__name__".to_owned()), 2 => "[a-c_]{0,2}"];
        let text = prop_oneof![Just("up".to_owned()), "[a-c]{0,2}", "\u{e9}{0,2}"];
        let labels = proptest::collection::vec((name, text), 0..4);
        let start = prop_oneof![3 => Just(0), 1 => any::<i64>()];
        let floats = proptest::collection::vec((any::<i64>(), any::<u64>(), start), 0..3);
        (labels, floats, proptest::bool::weighted(0.2))
    }

    fn body(all: &[One], first: &str) -> Vec<u8> {
        let mut out = RequestV2::default();
        // So that texts have other numbers from request to request.
        out.symbol(first);
        for (labels, floats, more) in all {
            labels.iter().for_each(|(name, value)| out.label(name, value));
            for &(timestamp, bits, start) in floats {
                out.sample(Sample { timestamp, value: f64::from_bits(bits) }, start);
            }
            if *more {
                out.histogram(&Native::Whole(model::Histogram { sum: 2.0, ..Default::default() }), 5, 1);
                out.exemplar([("trace", first)], 0.5, 6);
            }
            out.end();
        }
        out.finish()
    }

    proptest! {
        #[test]
        fn recognised_or_parsed_the_rows_are_the_same(
            requests in proptest::collection::vec(
                (proptest::collection::vec(series(), 0..6), "[a-c]{0,2}", any::<bool>(), any::<bool>(), any::<bool>()), 1..4
            ),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            relabelled in any::<bool>(),
        ) {
            let door = if relabelled { Door::relabelling() } else { Door::new() };
            for at in &order {
                let (all, first, a, labels, handles) = at.get(&requests);
                door.check_v2(if *a { "a" } else { "b" }, &body(all, first), *labels, *handles);
            }
        }

        #[test]
        fn damage_is_seen_alike(
            all in proptest::collection::vec(series(), 1..5), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let door = Door::new();
            let mut body = body(&all, "");
            door.check_v2("a", &body, false, true);
            let at = at.index(body.len());
            body[at] = byte;
            for _ in 0..2 {
                door.check_v2("a", &body, false, true);
            }
        }
    }

    #[test]
    fn the_second_time_series_are_predicted() {
        let door = Door::new();
        let one = |n: usize| {
            let labels = vec![("job".to_owned(), "x".to_owned()), ("__name__".to_owned(), format!("m{n}"))];
            (labels, vec![(5, 0, 0)], n.is_multiple_of(2))
        };
        let all: Vec<One> = (0..10).map(one).collect();
        let body = |first| body(&all, first);
        assert_eq!(door.check_v2("a", &body(""), false, true), Ways { parse: 10, ..Ways::default() });
        assert_eq!(door.check_v2("a", &body("z"), false, true), Ways { hint: 9, probe: 1, parse: 0 });
        // Of another tenant nothing is known.
        assert_eq!(door.check_v2("b", &body("z"), false, true), Ways { parse: 10, ..Ways::default() });
    }
}
