//! A remote-write body into a batch: labels sorted and checked, the placement hash taken, and what can never be
//! stored set aside with its reason.
//!
//! A series that is wrong costs its own samples only. Nothing is judged here that depends on what is stored
//! or on the time.
//!
//! # Cost
//! One pass; the decompressed body and the columns live in buffers of the thread and are used again.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use identity::{Identities, Met, Text};
use model::{Labels, TenantId};
use relabel::Rules;
use storage::{Refusal, Verdict, WriteBatch};
use wire::WireError;
use wire::remote_write::{self, DecodedV1, DecodedV2, Limits, Packed};

use crate::admit::Version;
use crate::metadata::{Saying, said};
use crate::origin::{self, Origin};
use crate::resolve::Stretch;
use crate::status::{Denial, Example};
use crate::{resolve, resolve_v2, series};

/// What a body holds.
#[derive(Debug, Default)]
pub struct Decoded {
    pub batch: WriteBatch,
    pub aside: Aside,
    /// Who the batch's rows are; empty where nobody was to be recognised.
    pub met: Vec<Met>,
    /// Where the rows' labels lie in the plain body; of 2.0, which series of it each row is, as an empty range there.
    pub regions: Vec<Range<u32>>,
    /// Whether the body is one of 2.0.
    pub by_symbols: bool,
    /// How they were recognised.
    pub ways: Ways,
    /// What is said of metrics.
    pub said: Vec<Saying>,
    /// Who goes on with the batch and asks for the body that it came in.
    pub origin: Option<Arc<Origin>>,
}

/// Series by the way in which they were recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Predicted from the series before.
    pub hint: u64,
    /// Looked up by their label bytes.
    pub probe: u64,
    /// Parsed.
    pub parse: u64,
}

impl Decoded {
    fn clear(&mut self) {
        self.batch.clear();
        self.aside = Aside::default();
        self.met.clear();
        self.regions.clear();
        self.ways = Ways::default();
        self.by_symbols = false;
        self.said.clear();
        self.origin = None;
    }
}

/// Samples that are refused whatever is stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aside {
    pub invalid_labels: u64,
    /// What there is no form for.
    pub unsupported: u64,
    pub invalid_histograms: u64,
    /// Counted where the sender is told of them (2.0).
    pub invalid_exemplars: u64,
    pub example: Option<Example>,
}

impl Aside {
    /// A verdict for each sample that is here; exemplars are none.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> + use<> {
        let all = [
            (Refusal::InvalidLabels, self.invalid_labels),
            (Refusal::Unsupported, self.unsupported),
            (Refusal::InvalidHistogram, self.invalid_histograms),
        ];
        all.into_iter().flat_map(|(why, count)| std::iter::repeat_n(Verdict::Refused(why), count as usize))
    }

    pub fn put(&mut self, reason: Refusal, count: u64, example: impl FnOnce() -> Example) {
        match reason {
            Refusal::Unsupported => self.unsupported += count,
            Refusal::InvalidHistogram => self.invalid_histograms += count,
            Refusal::InvalidExemplar => self.invalid_exemplars += count,
            _ => self.invalid_labels += count,
        }
        if self.example.is_none() {
            self.example = Some(example());
        }
    }
}

/// Bytes of buffers that a thread keeps between requests; larger ones are given back.
const KEEP_BYTES: usize = 8 << 20;

#[derive(Default)]
struct Scratch {
    body: Vec<u8>,
    room: Room,
    decoded: Decoded,
}

/// Buffers to parse in.
#[derive(Default)]
pub struct Room {
    /// What was parsed in full.
    pub columns: DecodedV1,
    /// Labels alone.
    pub region: DecodedV1,
    pub labels: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// How bodies are read: within which limits, which label is left out, and by which rules their series are relabelled.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub limits: &'a Limits,
    /// The label that tells replicas of an HA pair apart, where the body comes from one.
    pub strip: Option<&'a str>,
    pub rules: &'a Rules,
}

impl Reading<'_> {
    /// Leaves the label out of canonical label bytes and applies the rules to the others, in place. False where a rule
    /// drops the series.
    pub fn relabel(&self, labels: &mut Vec<u8>) -> Result<bool, String> {
        if let Some(name) = self.strip {
            series::strip(labels, name);
        }
        if self.rules.is_empty() {
            return Ok(true);
        }
        let before = Labels::from_bytes(labels).map_err(|error| error.to_string())?;
        let after = self.rules.apply(&before).map_err(|error| format!("after relabelling: {error}"))?;
        let Some(after) = after else { return Ok(false) };
        labels.clear();
        labels.extend_from_slice(after.as_bytes());
        Ok(true)
    }
}

/// How series may be recognised, and what a batch must then hold.
#[derive(Clone, Copy)]
pub struct Recognise<'a> {
    pub identities: &'a Identities,
    /// Whose series they are: of a tenant, or of one of its replicas alone.
    pub space: &'a str,
    /// Milliseconds.
    pub now: i64,
    pub labels: Carry<'a>,
}

/// Which rows of series that were recognised carry their labels all the same.
#[derive(Clone, Copy)]
pub enum Carry<'a> {
    /// Every row.
    #[cfg(any(test, feature = "proof"))]
    All,
    /// Those that the engine here did not name: nobody else reads the batch.
    Unnamed,
    /// Those of them that are stored here, told by their placement hash. The others can be asked of the batch's source.
    UnnamedHere(&'a dyn Fn(u64) -> bool),
}

impl Carry<'_> {
    pub fn wants(self, hash: u64, is_named: bool) -> bool {
        match self {
            #[cfg(any(test, feature = "proof"))]
            Carry::All => true,
            Carry::Unnamed => !is_named,
            Carry::UnnamedHere(here) => !is_named && here(hash),
        }
    }
}

/// Decodes a compressed `prometheus.WriteRequest` and hands it to `then` with the plain body; `then` may take
/// the batch out, and what it leaves is used again for the thread's next request. Without `recognise` every
/// series is parsed.
pub fn decode_v1<'b, R>(
    tenant: &TenantId,
    body: impl Into<Packed<'b>>,
    reading: Reading<'_>,
    recognise: Option<Recognise<'_>>,
    then: impl FnOnce(&mut Decoded, &[u8]) -> R,
) -> Result<R, Denial> {
    // Taken out while it is in use, so that a panic costs only the buffers.
    let mut scratch = SCRATCH.take();
    let (mut space, len) = unpack(body.into(), reading, &mut scratch.body)?;
    let answer = unpacked_v1(tenant, &mut space, len, reading, recognise, &mut scratch, then);
    scratch.body = space;
    scratch.keep();
    answer
}

/// Unpacks a body into `space`, or into one that is free; where it is now, and its length.
fn unpack(body: Packed<'_>, reading: Reading<'_>, space: &mut Vec<u8>) -> Result<(Vec<u8>, usize), Denial> {
    if space.is_empty()
        && let Some(spare) = origin::spare()
    {
        *space = spare;
    }
    let len = body.open(reading.limits, space).map_err(deny)?.len();
    Ok((std::mem::take(space), len))
}

/// As [`decode_v1`] for the first `len` bytes of `space`, where a body has been unpacked. Whoever goes on with the batch may
/// take `space` with it.
pub fn owned_v1<R>(
    tenant: &TenantId,
    space: &mut Vec<u8>,
    len: usize,
    reading: Reading<'_>,
    recognise: Option<Recognise<'_>>,
    then: impl FnOnce(&mut Decoded, &[u8]) -> R,
) -> Result<R, Denial> {
    let mut scratch = SCRATCH.take();
    let answer = unpacked_v1(tenant, space, len, reading, recognise, &mut scratch, then);
    scratch.keep();
    answer
}

fn unpacked_v1<R>(
    tenant: &TenantId,
    space: &mut Vec<u8>,
    len: usize,
    reading: Reading<'_>,
    recognise: Option<Recognise<'_>>,
    scratch: &mut Scratch,
    then: impl FnOnce(&mut Decoded, &[u8]) -> R,
) -> Result<R, Denial> {
    let Scratch { room, decoded, .. } = scratch;
    decoded.clear();
    let plain = space.get(..len).unwrap_or_default();
    match recognise {
        Some(recognise) => {
            resolve::resolve(tenant, plain, Stretch::Request, reading, recognise, room, decoded)
        }
        None => parse(tenant, plain, reading, room, decoded),
    }
    .map_err(deny)?;
    said(&room.columns, plain, &mut decoded.said);
    let answer = then(decoded, plain);
    if let Some(origin) = decoded.origin.take() {
        origin.keep(std::mem::take(space), decoded);
    }
    Ok(answer)
}

/// As [`decode_v1`] for a stretch of a peer's request, which is not compressed.
pub fn plain_v1<R>(
    tenant: &TenantId,
    plain: &[u8],
    reading: Reading<'_>,
    recognise: Recognise<'_>,
    then: impl FnOnce(&mut Decoded) -> R,
) -> Result<R, Denial> {
    let mut scratch = SCRATCH.take();
    let Scratch { room, decoded, .. } = &mut scratch;
    decoded.clear();
    resolve::resolve(tenant, plain, Stretch::OfPeer, reading, recognise, room, decoded).map_err(deny)?;
    let answer = then(decoded);
    scratch.keep();
    Ok(answer)
}

impl Scratch {
    /// Gives the buffers to the thread's next request.
    fn keep(self) {
        if self.body.capacity() + self.room.columns.capacity_bytes() <= KEEP_BYTES {
            SCRATCH.set(self);
        }
    }
}

/// Parses every series of a plain body.
fn parse(
    tenant: &TenantId,
    plain: &[u8],
    reading: Reading<'_>,
    room: &mut Room,
    decoded: &mut Decoded,
) -> Result<(), WireError> {
    let Room { columns, labels, .. } = room;
    remote_write::decode_v1(plain, reading.limits, columns)?;
    for series in columns.series() {
        series::take(tenant, reading, columns, series, plain, labels, decoded, Version::V1);
    }
    Ok(())
}

#[derive(Default)]
struct ScratchV2 {
    body: Vec<u8>,
    room: RoomV2,
    decoded: Decoded,
}

/// Buffers to parse 2.0 in.
#[derive(Default)]
pub struct RoomV2 {
    pub columns: DecodedV2,
    pub labels: Vec<u8>,
    /// Hashes of the symbols.
    pub texts: Vec<Text>,
}

thread_local! {
    static SCRATCH_V2: RefCell<ScratchV2> = RefCell::default();
}

/// As [`decode_v1`] for a compressed `io.prometheus.write.v2.Request`.
pub fn decode_v2<'b, R>(
    tenant: &TenantId,
    body: impl Into<Packed<'b>>,
    reading: Reading<'_>,
    recognise: Option<Recognise<'_>>,
    then: impl FnOnce(&mut Decoded, &[u8]) -> R,
) -> Result<R, Denial> {
    let mut scratch = SCRATCH_V2.take();
    let (mut space, len) = unpack(body.into(), reading, &mut scratch.body)?;
    let answer = unpacked_v2(tenant, &mut space, len, reading, recognise, &mut scratch, then);
    scratch.body = space;
    scratch.keep();
    answer
}

/// As [`decode_v2`] for a body that is not compressed: the first `len` bytes of `space`, which whoever goes on with the
/// batch may take with it.
pub fn plain_v2<R>(
    tenant: &TenantId,
    space: &mut Vec<u8>,
    len: usize,
    reading: Reading<'_>,
    recognise: Option<Recognise<'_>>,
    then: impl FnOnce(&mut Decoded, &[u8]) -> R,
) -> Result<R, Denial> {
    let mut scratch = SCRATCH_V2.take();
    let answer = unpacked_v2(tenant, space, len, reading, recognise, &mut scratch, then);
    scratch.keep();
    answer
}

fn unpacked_v2<R>(
    tenant: &TenantId,
    space: &mut Vec<u8>,
    len: usize,
    reading: Reading<'_>,
    recognise: Option<Recognise<'_>>,
    scratch: &mut ScratchV2,
    then: impl FnOnce(&mut Decoded, &[u8]) -> R,
) -> Result<R, Denial> {
    let ScratchV2 { room, decoded, .. } = scratch;
    decoded.clear();
    let plain = space.get(..len).unwrap_or_default();
    resolve_v2::resolve(tenant, plain, reading, recognise, room, decoded).map_err(deny)?;
    let answer = then(decoded, plain);
    if let Some(origin) = decoded.origin.take() {
        origin.keep(std::mem::take(space), decoded);
    }
    Ok(answer)
}

impl ScratchV2 {
    /// Gives the buffers to the thread's next request.
    fn keep(self) {
        if self.body.capacity() + self.room.columns.capacity_bytes() <= KEEP_BYTES {
            SCRATCH_V2.set(self);
        }
    }
}

pub fn deny(error: wire::WireError) -> Denial {
    match error.kind {
        model::Kind::Refused => Denial::TooLarge(error.message),
        _ => Denial::Invalid(error.message),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant() -> TenantId {
        TenantId::new("t").unwrap()
    }

    fn message(series: &[(&[(&[u8], &[u8])], &[(f64, i64)])]) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| {
            let mut out = vec![number << 3 | 2];
            let mut len = bytes.len();
            while len >= 0x80 {
                out.push(len as u8 | 0x80);
                len >>= 7;
            }
            out.push(len as u8);
            out.extend_from_slice(bytes);
            out
        };
        let mut out = Vec::new();
        for (labels, samples) in series {
            let mut one = Vec::new();
            for (name, value) in *labels {
                one.extend(field(1, &[field(1, name), field(2, value)].concat()));
            }
            for (value, time) in *samples {
                let mut sample = vec![0x09];
                sample.extend(value.to_bits().to_le_bytes());
                sample.push(0x10);
                let mut t = *time as u64;
                while t >= 0x80 {
                    sample.push(t as u8 | 0x80);
                    t >>= 7;
                }
                sample.push(t as u8);
                one.extend(field(2, &sample));
            }
            out.extend(field(1, &one));
        }
        snap::raw::Encoder::new().compress_vec(&out).unwrap()
    }

    fn decode(series: &[(&[(&[u8], &[u8])], &[(f64, i64)])]) -> Decoded {
        decode_v1(&tenant(), &message(series), Reading::within(&Limits::default()), None, |decoded, _| {
            std::mem::take(decoded)
        })
        .unwrap()
    }

    #[test]
    fn labels_are_sorted_and_hashed_as_the_model_does() {
        let decoded = decode(&[(&[(b"job", b"a"), (b"__name__", b"up"), (b"empty", b"")], &[(1.0, 5)])]);
        let series = &decoded.batch.series()[0];
        let labels = decoded.batch.labels(series).unwrap();
        assert_eq!(labels, Labels::from_pairs([("__name__", "up"), ("job", "a")]).unwrap());
        assert_eq!(series.hash, labels.placement_hash("t"));
        assert_eq!(decoded.aside, Aside::default());
    }

    #[test]
    fn a_wrong_series_costs_only_its_own_samples() {
        for (labels, part) in [
            (&[][..], "no labels"),
            (&[(&b"job"[..], &b"a"[..])], "metric name is missing"),
            (&[(b"__name__", b""), (b"a", b"b")], "metric name is missing"),
            (&[(b"__name__", b"up"), (b"", b"x")], "name is empty"),
            (&[(b"__name__", b"up"), (b"a", b"1"), (b"a", b"2")], "\"a\" appears twice"),
            (&[(b"__name__", b"up"), (b"a", b"\xff")], "UTF-8"),
        ] {
            let decoded = decode(&[
                (&[(b"__name__", b"good")], &[(1.0, 5)]),
                (labels, &[(1.0, 5), (2.0, 6)]),
                (&[(b"__name__", b"better")], &[(f64::NAN, 5), (f64::INFINITY, 6)]),
            ]);
            assert_eq!(decoded.batch.series().len(), 2, "{part}");
            assert_eq!(decoded.aside.invalid_labels, 2, "{part}");
            let example = decoded.aside.example.unwrap();
            assert!(example.detail.as_ref().unwrap().contains(part), "{example:?}");
            assert_eq!(example.timestamp, Some(5));
        }
    }

    #[test]
    fn any_utf8_name_will_do() {
        let decoded =
            decode(&[(&[(b"__name__", "température.max x".as_bytes()), (b"a b", b"\n")], &[(1.0, 5)])]);
        assert_eq!((decoded.batch.series().len(), decoded.aside.invalid_labels), (1, 0));
    }

    #[test]
    fn a_series_of_nothing_is_nothing() {
        let decoded = decode(&[(&[(b"", b"x")], &[]), (&[], &[])]);
        assert!(decoded.batch.is_empty());
        assert_eq!(decoded.aside, Aside::default());
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
            let _ = decode_v1(&tenant(), &body, Reading::within(&Limits::default()), None, |_, _| ());
            let _ = decode_v1(&tenant(), &plain, Reading::within(&Limits::default()), None, |_, _| ());
            let _ = decode_v2(&tenant(), &body, Reading::within(&Limits::default()), None, |_, _| ());
            let _ = decode_v2(&tenant(), &plain, Reading::within(&Limits::default()), None, |_, _| ());
        }
    }
}
