//! What fuzzing sees of the frames: whatever is read is written again, and reads the same.

use storage::SeriesHandle;
use wire::remote_write::Limits;

use super::frame::{self, REPLY, REQUEST};
use super::reply::Reply;
use super::request::{Decoder, Encoder, RowRef};
use super::{Hello, Welcome};

/// Reads a frame of any kind. Without a right checksum it gets one.
///
/// # Panics
/// Where a request that was read does not come back from what is written for it.
pub fn any_frame(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    if frame::open(bytes).is_err() {
        frame::end(&mut sealed);
    }
    let Ok((kind, body)) = frame::open(&sealed) else { return };
    let _ = Hello::decode(&sealed);
    let _ = Welcome::decode(&sealed);
    match kind {
        REPLY => {
            if let Ok(reply) = Reply::decode(body)
                && let Ok(again) = frame::open(&reply.encode()).and_then(|(_, body)| Reply::decode(body))
            {
                assert_eq!(again.id, reply.id);
                assert_eq!(again.result.is_ok(), reply.result.is_ok());
            }
        }
        REQUEST => request(body),
        _ => {}
    }
}

fn request(body: super::bytes::Read<'_>) {
    let limits = Limits { max_series: 10_000, ..Limits::default() };
    let meaning = |epoch: u32, slot: u32| {
        slot.is_multiple_of(2).then_some((u64::from(slot), SeriesHandle { index: slot, generation: epoch }))
    };
    let mut decoder = Decoder::default();
    let Ok(first) = decoder.decode(body, &limits, meaning) else { return };
    let rows: Vec<u32> = (0..first.batch.series().len() as u32).collect();
    let mut refs = vec![RowRef::Bare; rows.len()];
    for row in &rows {
        if let Some(handle) = first.batch.series()[*row as usize].handle {
            refs[*row as usize] =
                RowRef::Known(if handle == SeriesHandle::NOWHERE { 1 } else { handle.index });
        }
    }
    for (row, slot) in &first.rows.defined {
        refs[*row as usize] = RowRef::Define(*slot);
    }
    let mut again = Vec::new();
    Encoder::default().encode(&first.head, &first.batch, &rows, &refs, &mut again);
    let second = frame::open(&again).and_then(|(_, body)| decoder.decode(body, &limits, meaning));
    let second = second.unwrap_or_else(|error| panic!("a request that was read is not read again: {error}"));
    assert_eq!(first.head, second.head);
    assert_eq!(first.rows.defined, second.rows.defined);
    assert_eq!(first.rows.unknown, second.rows.unknown);
    let bits = |batch: &storage::WriteBatch| -> Vec<(i64, u64)> {
        batch.samples().iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect()
    };
    assert_eq!(bits(&first.batch), bits(&second.batch));
    assert_eq!(first.batch.histograms().len(), second.batch.histograms().len());
    let exemplars = |batch: &storage::WriteBatch| -> Vec<(i64, u64, Vec<u8>)> {
        let bits = |row: &storage::ExemplarRow| {
            (row.timestamp, row.value.to_bits(), batch.exemplar_labels(row).to_vec())
        };
        batch.exemplars().iter().map(bits).collect()
    };
    assert_eq!(exemplars(&first.batch), exemplars(&second.batch));
    for (one, two) in first.batch.series().iter().zip(second.batch.series()) {
        assert_eq!(first.batch.verdicts_of(one), second.batch.verdicts_of(two));
        assert_eq!(first.batch.label_bytes(one), second.batch.label_bytes(two));
    }
}

/// Frames of every kind, as seeds.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use super::reply::{Fault, Told};
    use super::request::Head;
    use model::{Labels, Native, Sample, TenantId};
    use storage::{HistogramRow, Verdict, WriteBatch};

    let mut batch = WriteBatch::default();
    for n in 0..12i64 {
        for at in 0..if n == 7 { 3 } else { 1 } {
            batch.open().push(Sample { timestamp: 1_000_000 + at, value: n as f64 * 1.1 });
            batch.push_start(if n == 9 { 5 } else { 0 });
        }
        if n % 5 == 0 {
            let histogram = Native::Whole(model::Histogram { sum: 2.5, ..Default::default() });
            batch.push_histogram(HistogramRow { timestamp: 7, start: 0, histogram });
            batch.push_exemplar(8, 0.5, b"\x02id\x01x");
        }
        let labels = Labels::from_pairs([("__name__", "up"), ("n", &n.to_string())])
            .unwrap_or_else(|_| Labels::empty());
        batch.close(labels.as_bytes(), labels.placement_hash("t"), None);
    }
    let Ok(tenant) = TenantId::new("t") else { return Vec::new() };
    let head =
        Head { id: 9, epoch: 1, deadline_ms: 5000, replica: 1, judged_at: 1_000_100, tenant, ring_epoch: 0 };
    let mut encoder = Encoder::default();
    let mut request = |rows: &[u32], refs: &[RowRef]| {
        let mut out = Vec::new();
        encoder.encode(&head, &batch, rows, refs, &mut out);
        out
    };
    let rows: Vec<u32> = (0..12).collect();
    use RowRef::{Bare, Define, Known};
    let mixed = [
        Known(4),
        Known(6),
        Known(90),
        Known(91),
        Known(92),
        Known(93),
        Define(7),
        Define(8),
        Define(20),
        Bare,
        Bare,
        Known(5),
    ];
    let few: Vec<u32> = vec![1, 2, 3, 4];
    let told = Told {
        runs: vec![(Some(Verdict::Stored), 5), (None, 1), (Some(Verdict::Unavailable), 2)],
        forgotten: vec![1],
    };
    let fault = Fault::Error { passing: true, message: "the log is being replayed".to_owned() };
    vec![
        ("hello", Hello { lowest: 1, highest: 1, features: 0, door: "a:1".to_owned() }.encode()),
        (
            "welcome",
            Welcome { version: 1, features: 0, names: 9, frame_bytes: 1 << 20, inflight_bytes: 1 << 24 }
                .encode(),
        ),
        ("mixed", request(&rows, &mixed)),
        ("labels", request(&few, &[Bare; 4])),
        ("known", request(&few, &[Known(2), Known(4), Known(6), Known(8)])),
        ("stored", Reply { id: 9, result: Ok(Told::default()) }.encode()),
        ("told", Reply { id: 9, result: Ok(told) }.encode()),
        ("fault", Reply { id: 9, result: Err(fault) }.encode()),
    ]
}
