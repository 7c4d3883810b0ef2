//! One hint as bytes: what a peer missed, with when it was kept.

use model::{Kind, TenantId, Timestamp};
use rpc::{WriteCall, WriteRequest};
use storage::{Error, WriteBatch};

const VERSION: u8 = 1;
/// Version, time, samples.
const HEAD: usize = 1 + 8 + 4;
/// What one hint may take when it is unpacked; what is kept is far smaller.
const MAX_PLAIN: usize = 256 << 20;
/// Samples this much older than the moment at which their door judged them are sent as of their own time; less where
/// peers take late samples for a shorter time.
const LAG: i64 = 30 * 60_000;

/// A hint that was read.
#[derive(Debug)]
pub struct Frame {
    pub kept_at: Timestamp,
    pub samples: u32,
    pub tenant: TenantId,
    pub replica: u32,
    pub judged_at: Timestamp,
    pub batch: WriteBatch,
}

/// A hint as bytes, and how many samples are in it.
pub fn encode(call: &WriteCall, kept_at: Timestamp) -> Result<(Vec<u8>, u32), Error> {
    let rows = call.rows.iter().filter_map(|row| call.batch.series().get(*row as usize));
    let samples: usize =
        rows.map(|series| call.batch.verdicts_of(series).into_iter().flatten().count()).sum();
    let samples = u32::try_from(samples).unwrap_or(u32::MAX);
    let packed = wire::remote_write::compress(&rpc::keep_write(call))
        .map_err(|error| Error::new(Kind::Internal, format!("hint cannot be packed: {error}")))?;
    let mut out = Vec::with_capacity(HEAD + packed.len());
    out.push(VERSION);
    out.extend_from_slice(&kept_at.to_le_bytes());
    out.extend_from_slice(&samples.to_le_bytes());
    out.extend_from_slice(&packed);
    Ok((out, samples))
}

/// When a hint was kept and how many samples it has, without unpacking it.
pub fn peek(bytes: &[u8]) -> Option<(Timestamp, u32)> {
    let (version, rest) = bytes.split_first()?;
    let (kept_at, rest) = rest.split_first_chunk::<8>()?;
    let samples = rest.first_chunk::<4>()?;
    (*version == VERSION).then_some((i64::from_le_bytes(*kept_at), u32::from_le_bytes(*samples)))
}

pub fn decode(bytes: &[u8]) -> Result<Frame, Error> {
    let corrupt = |what: String| Error::new(Kind::Corrupt, what);
    let Some((kept_at, samples)) = peek(bytes) else {
        return Err(corrupt("hint of an unknown version; start the newer version again".to_owned()));
    };
    let mut scratch = Vec::new();
    let limits = wire::remote_write::Limits {
        max_bytes: MAX_PLAIN,
        max_ratio: usize::MAX,
        ..wire::remote_write::Limits::default()
    };
    let plain = wire::remote_write::decompress(&bytes[HEAD..], &limits, &mut scratch)
        .map_err(|error| corrupt(format!("hint cannot be unpacked: {error}")))?;
    let WriteRequest { mut groups, replica, judged_at, .. } = rpc::kept_write(plain)?;
    let Some(group) = groups.pop() else { return Err(corrupt("hint without a tenant".to_owned())) };
    let judged_at = judged_at.unwrap_or(kept_at);
    Ok(Frame { kept_at, samples, tenant: group.tenant, replica, judged_at, batch: group.batch })
}

/// The parts of a hint, each with the time as of which the peer is to judge it. A sample that was in order at its door
/// may be old by then, and is not in order any more at a peer that went on without it: judged as of its own time, no
/// window refuses it. `window`: how late a sample may be that a peer takes in any order, in milliseconds.
pub fn by_age(batch: WriteBatch, judged_at: Timestamp, window: i64) -> Vec<(Timestamp, WriteBatch)> {
    let lag = window.clamp(0, LAG);
    let old = |t: Timestamp| judged_at.saturating_sub(t) > lag;
    let floats = batch.samples().iter().map(|sample| sample.timestamp);
    let mut times: Vec<_> = floats
        .chain(batch.histograms().iter().map(|row| row.timestamp))
        .chain(batch.exemplars().iter().map(|row| row.timestamp))
        .filter(|t| old(*t))
        .collect();
    if times.is_empty() {
        return vec![(judged_at, batch)];
    }
    times.sort_unstable();
    times.dedup();
    // Ends of stretches of at most `lag`, and the door's own.
    let mut ends: Vec<Timestamp> = Vec::new();
    let mut start = times[0];
    for pair in times.windows(2) {
        if pair[1].saturating_sub(start) > lag {
            ends.push(pair[0]);
            start = pair[1];
        }
    }
    ends.extend(times.last());
    let mut parts: Vec<(Timestamp, WriteBatch)> =
        ends.iter().chain([&judged_at]).map(|end| (*end, WriteBatch::default())).collect();
    let place = |t: Timestamp| ends.partition_point(|end| *end < t);
    for series in batch.series() {
        for at in series.samples() {
            let sample = batch.samples()[at];
            let part = &mut parts[place(sample.timestamp)].1;
            part.open().push(sample);
            part.push_start(batch.start_of(at));
        }
        for row in &batch.histograms()[batch.histograms_of(series)] {
            parts[place(row.timestamp)].1.push_histogram(row.clone());
        }
        for row in &batch.exemplars()[batch.exemplars_of(series)] {
            let labels = batch.exemplar_labels(row);
            parts[place(row.timestamp)].1.push_exemplar(row.timestamp, row.value, labels);
        }
        for (_, part) in &mut parts {
            if part.is_open() {
                part.close(batch.label_bytes(series), series.hash, None);
            }
        }
    }
    parts.retain(|(_, part)| !part.is_empty());
    parts.iter_mut().for_each(|(_, part)| part.splice(batch.is_spliced()));
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Labels, Sample};
    use proptest::prelude::*;

    use super::*;

    fn batch(times: &[i64]) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for name in ["up", "down"] {
            let labels = Labels::from_pairs([("__name__", name)]).unwrap();
            let samples = times.iter().map(|t| Sample { timestamp: *t, value: 1.0 });
            batch.push(labels.as_bytes(), labels.placement_hash("t"), samples);
        }
        batch
    }

    #[test]
    fn a_hint_is_read_as_it_was_kept() {
        let tenant = TenantId::new("t").unwrap();
        let batch = Arc::new(batch(&[1, 2, 3]));
        let (rows, tenant_of) = (vec![1], tenant.clone());
        let call = WriteCall { tenant: tenant_of, batch, rows, replica: 3, judged_at: 9, ring_epoch: 0 };
        let (bytes, samples) = encode(&call, 77).unwrap();
        assert_eq!((samples, peek(&bytes)), (3, Some((77, 3))));
        let frame = decode(&bytes).unwrap();
        assert_eq!((frame.kept_at, frame.replica, frame.judged_at), (77, 3, 9));
        assert_eq!((frame.tenant, frame.batch.series().len(), frame.batch.verdicts()), (tenant, 1, 3));
        assert_eq!(decode(&[9; 40]).unwrap_err().kind, Kind::Corrupt);
    }

    #[test]
    fn old_samples_are_judged_as_of_their_own_time() {
        let now = 100 * 60_000;
        let parts = by_age(batch(&[now - 1, now]), now, 2 * LAG);
        assert_eq!(parts.len(), 1);
        let times = [0, 60_000, 40 * 60_000, 99 * 60_000, now];
        let parts = by_age(batch(&times), now, 2 * LAG);
        assert_eq!(parts.iter().map(|(at, _)| at / 60_000).collect::<Vec<_>>(), [1, 40, 100]);
        let count: usize = parts.iter().map(|(_, part)| part.verdicts()).sum();
        assert_eq!(count, 2 * times.len());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_old(
            mut times in proptest::collection::vec(0i64..100 * LAG, 1..30), judged_at in 0i64..100 * LAG,
            window in 0..2 * LAG,
        ) {
            times.sort_unstable();
            times.dedup();
            let parts = by_age(batch(&times), judged_at, window);
            let mut seen: Vec<i64> = Vec::new();
            for (at, part) in &parts {
                for sample in part.samples() {
                    prop_assert!(at - sample.timestamp <= LAG.min(window));
                    // Not ahead either, but as far as it was at its door.
                    prop_assert!(sample.timestamp <= *at || *at == judged_at);
                    seen.push(sample.timestamp);
                }
            }
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen, times);
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let mut known = vec![VERSION];
            known.extend(bytes);
            let _ = decode(&known);
        }
    }
}
