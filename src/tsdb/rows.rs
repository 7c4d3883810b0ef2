//! What few series have, as it stands in the log: histograms and exemplars.

use model::histogram::{CUSTOM_BUCKETS, FloatHistogram, Histogram, ResetHint, Span};
use model::{Native, Timestamp, stale_nan};
use storage::Exemplar;

use crate::Error;
use crate::payload::{Reader, broken, put_v, put_z};

/// A payload of entries of different lengths while it grows; reused without allocation.
#[derive(Default)]
pub(crate) struct Entries {
    head: Vec<u8>,
    body: Vec<u8>,
    count: u64,
    last_id: u64,
    last_time: Timestamp,
}

impl Entries {
    /// Begins an entry; the caller adds what it is to the result.
    fn begin(&mut self, id: u64, timestamp: Timestamp) -> &mut Vec<u8> {
        put_z(&mut self.body, id.wrapping_sub(self.last_id) as i64);
        put_z(&mut self.body, timestamp.wrapping_sub(self.last_time));
        (self.last_id, self.last_time) = (id, timestamp);
        self.count += 1;
        &mut self.body
    }

    pub(crate) fn push_native(&mut self, id: u64, timestamp: Timestamp, histogram: &Native) {
        put_native(self.begin(id, timestamp), histogram);
    }

    /// `labels` are canonical bytes.
    pub(crate) fn push_exemplar(&mut self, id: u64, timestamp: Timestamp, value: f64, labels: &[u8]) {
        let out = self.begin(id, timestamp);
        put_float(out, value);
        put_v(out, labels.len() as u64);
        out.extend_from_slice(labels);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Bytes of memory.
    pub(crate) fn capacity(&self) -> usize {
        self.head.capacity() + self.body.capacity()
    }

    /// The payload in parts.
    pub(crate) fn parts(&mut self, shard: u16) -> [&[u8]; 2] {
        self.head.clear();
        self.head.extend_from_slice(&shard.to_le_bytes());
        put_v(&mut self.head, self.count);
        [&self.head, &self.body]
    }

    pub(crate) fn clear(&mut self) {
        self.body.clear();
        (self.count, self.last_id, self.last_time) = (0, 0, 0);
    }
}

/// Most bytes of a histogram's entry.
pub(crate) fn native_cost(histogram: &Native) -> usize {
    // Spans, counts and bounds take at most twice what they take in memory.
    2 * histogram.bytes() + 64
}

/// Most bytes of an exemplar's entry.
pub(crate) fn exemplar_cost(labels: &[u8]) -> usize {
    labels.len() + 40
}

/// Walks the rest of a HISTOGRAMS payload.
pub(crate) fn read_natives(
    mut reader: Reader<'_>,
    mut each: impl FnMut(u64, Timestamp, Native) -> Result<(), Error>,
) -> Result<(), Error> {
    entries(&mut reader, |id, timestamp, reader| each(id, timestamp, take_native(reader)?))
}

/// Walks the rest of an EXEMPLARS payload.
pub(crate) fn read_exemplars(
    mut reader: Reader<'_>,
    mut each: impl FnMut(u64, Exemplar) -> Result<(), Error>,
) -> Result<(), Error> {
    entries(&mut reader, |id, timestamp, reader| {
        let value = reader.float()?;
        let labels = reader.bytes()?;
        let labels = match labels.is_empty() {
            true => model::Labels::empty(),
            false => model::Labels::from_bytes(labels).map_err(|_| broken())?,
        };
        each(id, Exemplar { labels, value, timestamp })
    })
}

fn entries<'a>(
    reader: &mut Reader<'a>,
    mut each: impl FnMut(u64, Timestamp, &mut Reader<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut id, mut timestamp) = (0u64, 0i64);
    for _ in 0..reader.v()? {
        id = id.wrapping_add(reader.z()? as u64);
        timestamp = timestamp.wrapping_add(reader.z()?);
        // Sums of times must not overflow, whoever wrote them.
        if timestamp.unsigned_abs() > 1 << 62 {
            return Err(broken());
        }
        each(id, timestamp, reader)?;
    }
    if reader.is_empty() { Ok(()) } else { Err(broken()) }
}

const FLOAT: u8 = 1;
const STALE: u8 = 2;
const HINT_AT: u8 = 2;

fn put_native(out: &mut Vec<u8>, histogram: &Native) {
    let float = if matches!(histogram, Native::Float(_)) { FLOAT } else { 0 };
    if histogram.is_stale() {
        return out.push(float | STALE);
    }
    out.push(float | (histogram.hint() as u8) << HINT_AT);
    match histogram {
        Native::Whole(h) => {
            put_shape(out, h.schema, h.zero_threshold, h.sum, &h.positive_spans, &h.negative_spans);
            put_v(out, h.count);
            put_v(out, h.zero_count);
            h.positive_deltas.iter().chain(&h.negative_deltas).for_each(|delta| put_z(out, *delta));
            put_bounds(out, h.schema, &h.custom_values);
        }
        Native::Float(h) => {
            put_shape(out, h.schema, h.zero_threshold, h.sum, &h.positive_spans, &h.negative_spans);
            put_float(out, h.count);
            put_float(out, h.zero_count);
            h.positive_counts.iter().chain(&h.negative_counts).for_each(|count| put_float(out, *count));
            put_bounds(out, h.schema, &h.custom_values);
        }
    }
}

fn put_shape(out: &mut Vec<u8>, schema: i32, threshold: f64, sum: f64, up: &[Span], down: &[Span]) {
    put_z(out, schema.into());
    put_float(out, threshold);
    put_float(out, sum);
    for spans in [up, down] {
        put_v(out, spans.len() as u64);
        for span in spans {
            put_z(out, span.offset.into());
            put_v(out, span.length.into());
        }
    }
}

fn put_bounds(out: &mut Vec<u8>, schema: i32, bounds: &[f64]) {
    if schema == CUSTOM_BUCKETS {
        put_v(out, bounds.len() as u64);
        bounds.iter().for_each(|bound| put_float(out, *bound));
    }
}

fn put_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// A histogram that passes its check.
fn take_native(reader: &mut Reader<'_>) -> Result<Native, Error> {
    let flags = reader.byte()?;
    let float = flags & FLOAT != 0;
    if flags & STALE != 0 {
        return Ok(match float {
            true => Native::Float(FloatHistogram { sum: stale_nan(), ..FloatHistogram::default() }),
            false => Native::Whole(Histogram { sum: stale_nan(), ..Histogram::default() }),
        });
    }
    let hint = ResetHint::from_code(flags >> HINT_AT).ok_or_else(broken)?;
    let schema = i32::try_from(reader.z()?).map_err(|_| broken())?;
    let (zero_threshold, sum) = (reader.float()?, reader.float()?);
    let (positive_spans, up) = take_spans(reader)?;
    let (negative_spans, down) = take_spans(reader)?;
    let native = if float {
        let (count, zero_count) = (reader.float()?, reader.float()?);
        let mut side = |n: usize| (0..n).map(|_| reader.float()).collect::<Result<Vec<_>, _>>();
        let (positive_counts, negative_counts) = (side(up)?, side(down)?);
        let custom_values = take_bounds(reader, schema)?.into();
        Native::Float(FloatHistogram {
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            hint,
            positive_spans,
            negative_spans,
            positive_counts,
            negative_counts,
            custom_values,
        })
    } else {
        let (count, zero_count) = (reader.v()?, reader.v()?);
        let mut side = |n: usize| (0..n).map(|_| reader.z()).collect::<Result<Vec<_>, _>>();
        let (positive_deltas, negative_deltas) = (side(up)?, side(down)?);
        let custom_values = take_bounds(reader, schema)?.into();
        Native::Whole(Histogram {
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            hint,
            positive_spans,
            negative_spans,
            positive_deltas,
            negative_deltas,
            custom_values,
        })
    };
    match native.check() {
        Ok(()) => Ok(native),
        Err(_) => Err(broken()),
    }
}

/// Spans, and how many buckets they hold.
fn take_spans(reader: &mut Reader<'_>) -> Result<(Vec<Span>, usize), Error> {
    let n = reader.v()?;
    // A span takes two bytes at least, and each of its buckets one.
    if n > reader.left() as u64 {
        return Err(broken());
    }
    let (mut spans, mut buckets) = (Vec::with_capacity(n as usize), 0u64);
    for _ in 0..n {
        let offset = i32::try_from(reader.z()?).map_err(|_| broken())?;
        let length = u32::try_from(reader.v()?).map_err(|_| broken())?;
        buckets += u64::from(length);
        spans.push(Span { offset, length });
    }
    if buckets > reader.left() as u64 {
        return Err(broken());
    }
    Ok((spans, buckets as usize))
}

fn take_bounds(reader: &mut Reader<'_>, schema: i32) -> Result<Vec<f64>, Error> {
    if schema != CUSTOM_BUCKETS {
        return Ok(Vec::new());
    }
    let n = reader.v()?;
    if n > reader.left() as u64 / 8 {
        return Err(broken());
    }
    (0..n).map(|_| reader.float()).collect()
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use model::histogram::differences;
    use proptest::prelude::*;

    use super::*;

    fn any_native() -> impl Strategy<Value = Native> {
        let counts = proptest::collection::vec(0..i64::MAX / 64, 0..6);
        (counts.clone(), counts, any::<i32>(), 0..5u8, any::<f64>(), 0..4u8).prop_map(
            |(up, down, offset, kind, sum, hint)| {
                let spans = |n: usize| vec![Span { offset: offset / 2, length: n as u32 }];
                let count = up.iter().chain(&down).sum::<i64>() as u64;
                let (mut positive_deltas, mut negative_deltas) = (up.clone(), down.clone());
                differences(&mut positive_deltas);
                differences(&mut negative_deltas);
                let whole = Histogram {
                    schema: offset % 5,
                    zero_threshold: 0.001,
                    count,
                    sum,
                    hint: ResetHint::from_code(hint).unwrap(),
                    positive_spans: spans(up.len()),
                    negative_spans: spans(down.len()),
                    positive_deltas,
                    negative_deltas,
                    ..Histogram::default()
                };
                match kind {
                    0 => Native::Whole(whole).stale(),
                    1 => Native::Float(whole.to_float()).stale(),
                    2 => Native::Float(whole.to_float()),
                    3 => Native::Whole(Histogram {
                        schema: CUSTOM_BUCKETS,
                        count: 3,
                        hint: whole.hint,
                        positive_spans: vec![Span { offset: 1, length: 1 }],
                        positive_deltas: vec![3],
                        custom_values: [0.5, 1e9].into(),
                        ..Histogram::default()
                    }),
                    _ => Native::Whole(whole),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(
            rows in proptest::collection::vec((any::<u64>(), -(1i64 << 61)..1 << 61, any_native(), any::<f64>()), 0..8)
        ) {
            let (mut natives, mut exemplars) = (Entries::default(), Entries::default());
            let labels = Labels::from_pairs([("trace_id", "é")]).unwrap();
            let of = |at: usize| if at.is_multiple_of(2) { labels.clone() } else { Labels::empty() };
            for (at, (id, t, h, v)) in rows.iter().enumerate() {
                let before = natives.len();
                natives.push_native(*id, *t, h);
                prop_assert!(natives.len() - before <= native_cost(h));
                let before = exemplars.len();
                exemplars.push_exemplar(*id, *t, *v, of(at).as_bytes());
                prop_assert!(exemplars.len() - before <= exemplar_cost(of(at).as_bytes()));
            }
            let payload = natives.parts(3).concat();
            let mut reader = Reader::new(&payload);
            prop_assert_eq!(reader.shard().unwrap(), 3);
            let mut back = Vec::new();
            read_natives(reader, |id, t, h| { back.push((id, t, h)); Ok(()) }).unwrap();
            prop_assert_eq!(back.len(), rows.len());
            for (a, b) in back.iter().zip(&rows) {
                prop_assert!((a.0, a.1) == (b.0, b.1) && a.2 == b.2);
                prop_assert!(a.2.is_stale() || a.2.hint() == b.2.hint());
                prop_assert_eq!(std::mem::discriminant(&a.2), std::mem::discriminant(&b.2));
            }
            let payload = exemplars.parts(3).concat();
            let mut reader = Reader::new(&payload);
            reader.shard().unwrap();
            let mut back = Vec::new();
            read_exemplars(reader, |id, e| { back.push((id, e)); Ok(()) }).unwrap();
            for (at, ((id, e), row)) in back.iter().zip(&rows).enumerate() {
                prop_assert_eq!((*id, e.timestamp, e.value.to_bits()), (row.0, row.1, row.3.to_bits()));
                prop_assert_eq!(&e.labels, &of(at));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), n in 0..4u8, row in any_native(), at in any::<prop::sample::Index>()
        ) {
            let read = |bytes: &[u8]| {
                let _ = read_natives(Reader::new(bytes), |_, _, _| Ok(()));
                let _ = read_exemplars(Reader::new(bytes), |_, _| Ok(()));
            };
            read(&bytes);
            read(&[&[n][..], &bytes].concat());
            let mut natives = Entries::default();
            natives.push_native(1, 2, &row);
            let mut good = natives.parts(0)[..].concat().split_off(2);
            let at = at.index(good.len());
            good[at] ^= bytes.first().copied().unwrap_or(1);
            read(&good);
        }
    }
}
