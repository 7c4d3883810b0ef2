//! Requests in frames, written and read back.

use model::histogram::Histogram;
use model::{Native, Sample};
use proptest::prelude::*;

use super::*;

fn labels(n: usize) -> Labels {
    Labels::from_pairs([("__name__", "up"), ("n", &n.to_string())]).unwrap()
}

#[derive(Clone, Debug)]
struct Row {
    by: u32,
    floats: Vec<(i64, u64, i64)>,
    histogram: bool,
    exemplar: bool,
}

fn row() -> impl Strategy<Value = Row> {
    let float = (
        prop_oneof![Just(1000i64), any::<i64>()],
        any::<u64>(),
        prop_oneof![3 => Just(0), 1 => any::<i64>()],
    );
    let floats = prop_oneof![4 => proptest::collection::vec(float.clone(), 1), 1 => proptest::collection::vec(float, 0..4)];
    (0..4u32, floats, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1))
        .prop_map(|(by, floats, histogram, exemplar)| Row { by, floats, histogram, exemplar })
}

/// A batch of these rows, and references of which some are known.
fn made(rows: &[Row]) -> (WriteBatch, Vec<RowRef>) {
    let mut batch = WriteBatch::default();
    let mut slot = 0;
    let refs = rows.iter().enumerate().map(|(n, row)| {
        for &(timestamp, bits, start) in &row.floats {
            batch.open().push(Sample { timestamp, value: f64::from_bits(bits) });
            batch.push_start(start);
        }
        if row.histogram {
            let histogram = Native::Whole(Histogram { sum: n as f64, ..Histogram::default() });
            batch.push_histogram(HistogramRow { timestamp: n as i64, start: 3, histogram });
        }
        if row.exemplar {
            batch.push_exemplar(n as i64, 0.5, labels(7).as_bytes());
        }
        let labels = labels(n);
        batch.close(labels.as_bytes(), labels.placement_hash("t"), None);
        slot += if row.by == 3 { 5 } else { 1 };
        match row.by {
            0 => RowRef::Bare,
            1 => RowRef::Define(slot),
            _ => RowRef::Known(slot),
        }
    });
    let refs = refs.collect();
    (batch, refs)
}

fn head() -> Head {
    Head {
        id: 7,
        epoch: 3,
        deadline_ms: 5000,
        replica: 2,
        judged_at: 990,
        tenant: TenantId::new("t").unwrap(),
        ring_epoch: 1 << 33,
    }
}

fn decode(frame: &[u8], limits: &Limits) -> Result<Incoming, FrameError> {
    let (_, body) = frame::open(frame)?;
    let meaning = |epoch: u32, slot: u32| {
        let handle = SeriesHandle { index: slot, generation: epoch };
        (!slot.is_multiple_of(7)).then_some((u64::from(slot) * 3, handle))
    };
    Decoder::default().decode(body, limits, meaning)
}

proptest! {
    #[test]
    fn what_is_sent_arrives(rows in proptest::collection::vec(row(), 0..40), skip: bool) {
        let (batch, refs) = made(&rows);
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let picked: Vec<usize> = (0..rows.len()).filter(|n| !skip || n % 3 != 1).collect();
        let refs: Vec<RowRef> = picked.iter().map(|n| refs[*n]).collect();
        let all: Vec<u32> = picked.iter().map(|n| all[*n]).collect();
        let mut frame = Vec::new();
        Encoder::default().encode(&head(), &batch, &all, &refs, &mut frame);
        let came = decode(&frame, &Limits::default()).unwrap();
        prop_assert_eq!(&came.head, &head());
        prop_assert_eq!(came.batch.series().len(), all.len());
        let (mut defined, mut unknown) = (Vec::new(), Vec::new());
        for (at, (sent, by)) in all.iter().zip(&refs).enumerate() {
            let (one, two) = (&batch.series()[*sent as usize], &came.batch.series()[at]);
            let of = |batch: &WriteBatch, series: &storage::SeriesRows| -> Vec<_> {
                series.samples().map(|n| {
                    let sample = batch.samples()[n];
                    (sample.timestamp, sample.value.to_bits(), batch.start_of(n))
                }).collect()
            };
            prop_assert_eq!(of(&batch, one), of(&came.batch, two));
            prop_assert_eq!(
                &batch.histograms()[batch.histograms_of(one)],
                &came.batch.histograms()[came.batch.histograms_of(two)]
            );
            prop_assert_eq!(batch.exemplars_of(one).len(), came.batch.exemplars_of(two).len());
            match *by {
                RowRef::Known(slot) if slot.is_multiple_of(7) => unknown.push(at as u32),
                RowRef::Known(slot) => {
                    prop_assert_eq!(two.handle, Some(SeriesHandle { index: slot, generation: 3 }));
                    prop_assert_eq!(two.hash, u64::from(slot) * 3);
                }
                by_labels => {
                    prop_assert_eq!(batch.label_bytes(one), came.batch.label_bytes(two));
                    prop_assert_eq!((two.hash, two.handle), (one.hash, None));
                    if let RowRef::Define(slot) = by_labels {
                        defined.push((at as u32, slot));
                    }
                }
            }
        }
        prop_assert_eq!(&came.rows.defined, &defined);
        prop_assert_eq!(&came.rows.unknown, &unknown);
        prop_assert_eq!(came.rows.known.len() + unknown.len(), all.len());
    }

    #[test]
    fn damage_under_a_right_checksum_never_panics(
        rows in proptest::collection::vec(row(), 0..12), at in any::<prop::sample::Index>(), byte: u8, cut in 0..20usize
    ) {
        let (batch, refs) = made(&rows);
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let mut frame = Vec::new();
        Encoder::default().encode(&head(), &batch, &all, &refs, &mut frame);
        frame.truncate(frame.len() - 4 - cut.min(frame.len() - 5));
        let at = at.index(frame.len());
        frame[at] = byte;
        frame::end(&mut frame);
        let _ = decode(&frame, &Limits::default());
    }
}

/// Five hundred series of a scrape that are known.
#[test]
fn what_a_sample_takes() {
    let mut batch = WriteBatch::default();
    for n in 0..500u32 {
        batch.push_known(SeriesHandle::NOWHERE, 0, [Sample { timestamp: 1000, value: f64::from(n).sqrt() }]);
    }
    let rows: Vec<u32> = (0..500).collect();
    let refs: Vec<RowRef> = (0..500).map(|n| RowRef::Known(70_000 + n)).collect();
    let mut frame = Vec::new();
    Encoder::default().encode(&head(), &batch, &rows, &refs, &mut frame);
    assert!(frame.len() < 500 * 9, "{}", frame.len());
}

#[test]
fn a_short_frame_does_not_ask_for_much() {
    let (batch, refs) = made(&[Row { by: 0, floats: vec![(1, 2, 0); 3], histogram: false, exemplar: false }]);
    let mut frame = Vec::new();
    Encoder::default().encode(&head(), &batch, &[0], &refs, &mut frame);
    let limits = Limits { max_series: 0, ..Limits::default() };
    assert_eq!(decode(&frame, &limits).unwrap_err(), FrameError::Limit("series"));
    // The count of three becomes a very large one.
    let at = frame.windows(2).position(|two| two == [1, 3]).unwrap();
    frame.truncate(frame.len() - 4);
    frame.splice(at..at + 2, [5, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    frame::end(&mut frame);
    assert_eq!(decode(&frame, &Limits::default()).unwrap_err(), FrameError::Short);
}
