//! `thanos.WriteRequest` between receivers, walked by hand like the door's requests: the same series, wrapped
//! in tenant, replica number and our own context.

use std::ops::Range;

use model::{Native, Sample, Timestamp};
use prost::Message;

use super::columns::DecodedV1;
use super::decode::push_series;
use super::encode::{put_bytes, put_double, put_histogram, put_sample_fields, put_samples, put_varint};
use super::{Limits, Series};
use crate::WireError;
use crate::pb::tributary::v1::WriteContext;
use crate::walk::{Walk, Wire};

/// Field number of our own messages inside Thanos's.
const OURS: u32 = 1000;

/// A decoded request of a peer, used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct PeerWrite {
    /// Series of all groups.
    pub columns: DecodedV1,
    groups: Vec<(String, Range<usize>)>,
    /// From 1; 0 means not replicated yet.
    pub replica: i64,
    /// Set by our own nodes only.
    pub context: Option<WriteContext>,
}

impl PeerWrite {
    /// Tenants and their series, in the order of the request.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &[Series])> {
        self.groups.iter().map(|(tenant, range)| (tenant.as_str(), &self.columns.series()[range.clone()]))
    }
}

/// Reads a request of either shape: series by tenant (field 4) win where there are any, else one tenant's
/// series (field 1) count. `out` is cleared first and holds nothing of use after an error.
pub fn decode_peer(body: &[u8], limits: &Limits, out: &mut PeerWrite) -> Result<(), WireError> {
    out.columns.clear(limits);
    out.groups.clear();
    (out.replica, out.context) = (0, None);
    if u32::try_from(body.len()).is_err() {
        return Err(WireError::refused(format!("write request too large: {} bytes", body.len())));
    }
    let by_tenant = has_groups(body)?;
    let mut tenant = String::new();
    let mut walk = Walk::new(body);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 => {
                walk.expect(wire, Wire::Bytes, "a time series")?;
                let series = walk.enter()?;
                if !by_tenant {
                    push_series(series, limits, &mut out.columns)?;
                }
            }
            2 => {
                walk.expect(wire, Wire::Bytes, "a tenant")?;
                tenant = text(walk.enter()?)?;
            }
            3 => {
                walk.expect(wire, Wire::Varint, "a replica number")?;
                out.replica = walk.varint()? as i64;
            }
            4 => {
                walk.expect(wire, Wire::Bytes, "a tenant's series")?;
                let first = out.columns.series().len();
                let tenant = push_group(walk.enter()?, limits, &mut out.columns)?;
                out.groups.push((tenant, first..out.columns.series().len()));
            }
            OURS => {
                walk.expect(wire, Wire::Bytes, "a write context")?;
                let inner = walk.enter()?;
                let context = WriteContext::decode(&body[inner.at..inner.end]);
                out.context = Some(context.map_err(|error| {
                    WireError::invalid(format!("protobuf has a bad write context: {error}"))
                })?);
            }
            _ => walk.skip(field, wire)?,
        }
    }
    if !by_tenant && !out.columns.series().is_empty() {
        out.groups.push((tenant, 0..out.columns.series().len()));
    }
    Ok(())
}

/// What a request says beside its series, and where these lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerEnvelope {
    /// Tenants, each with a stretch of the body whose fields 1 are its series.
    pub groups: Vec<(String, Range<usize>)>,
    pub replica: i64,
    /// Whether one of our nodes sent it, with a context of our own.
    pub is_ours: bool,
}

/// Reads what is around the series of a request of either shape, as [`decode_peer`] does, and none of them.
pub fn peer_envelope(body: &[u8]) -> Result<PeerEnvelope, WireError> {
    let mut out = PeerEnvelope::default();
    let (mut tenant, mut has_series) = (String::new(), false);
    let mut walk = Walk::new(body);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match (field, wire) {
            (1, Wire::Bytes) => {
                has_series = true;
                walk.enter()?;
            }
            (2, Wire::Bytes) => tenant = text(walk.enter()?)?,
            (3, Wire::Varint) => out.replica = walk.varint()? as i64,
            (4, Wire::Bytes) => {
                let group = walk.enter()?;
                let range = group.at..group.end;
                out.groups.push((tenant_of_group(group)?, range));
            }
            _ => {
                out.is_ours |= field == OURS;
                walk.skip(field, wire)?;
            }
        }
    }
    if out.groups.is_empty() && has_series {
        out.groups.push((tenant, 0..body.len()));
    }
    Ok(out)
}

fn tenant_of_group(mut walk: Walk<'_>) -> Result<String, WireError> {
    let mut tenant = String::new();
    while !walk.is_done() {
        match walk.key()? {
            (2, Wire::Bytes) => tenant = text(walk.enter()?)?,
            (field, wire) => walk.skip(field, wire)?,
        }
    }
    Ok(tenant)
}

fn has_groups(body: &[u8]) -> Result<bool, WireError> {
    let mut walk = Walk::new(body);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        if field == 4 {
            return Ok(true);
        }
        walk.skip(field, wire)?;
    }
    Ok(false)
}

fn push_group(mut walk: Walk<'_>, limits: &Limits, columns: &mut DecodedV1) -> Result<String, WireError> {
    let mut tenant = String::new();
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        match field {
            1 => {
                walk.expect(wire, Wire::Bytes, "a time series")?;
                push_series(walk.enter()?, limits, columns)?;
            }
            2 => {
                walk.expect(wire, Wire::Bytes, "a tenant")?;
                tenant = text(walk.enter()?)?;
            }
            _ => walk.skip(field, wire)?,
        }
    }
    Ok(tenant)
}

fn text(walk: Walk<'_>) -> Result<String, WireError> {
    match std::str::from_utf8(&walk.bytes[walk.at..walk.end]) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => {
            Err(WireError::invalid(format!("protobuf has a tenant that is not UTF-8 at byte {}", walk.at)))
        }
    }
}

/// Writes a request for a peer, series by series, from canonical label bytes.
#[derive(Debug, Default)]
pub struct PeerEncoder {
    series: Vec<u8>,
    /// One histogram or exemplar.
    message: Vec<u8>,
    /// All series so far, each with its key.
    body: Vec<u8>,
}

impl PeerEncoder {
    /// Adds a series of floats: labels as [`model::Labels::as_bytes`] gives them.
    pub fn push(&mut self, labels: &[u8], samples: &[Sample]) {
        self.begin(labels);
        put_samples(samples.iter().copied(), &mut self.series);
        self.end();
    }

    /// Begins a series; what follows belongs to it until [`PeerEncoder::end`].
    pub fn begin(&mut self, labels: &[u8]) {
        self.series.clear();
        put_labels(labels, &mut self.series);
    }

    /// `start` is 0 where nobody says when counting started; Thanos does not read it.
    pub fn sample(&mut self, sample: Sample, start: Timestamp) {
        if start == 0 {
            return put_samples([sample], &mut self.series);
        }
        self.message.clear();
        put_sample_fields(sample, &mut self.message);
        self.message.push(3 << 3);
        put_varint(start as u64, &mut self.message);
        put_bytes(2, &self.message, &mut self.series);
    }

    /// As [`PeerEncoder::sample`].
    pub fn histogram(&mut self, timestamp: Timestamp, start: Timestamp, histogram: &Native) {
        self.message.clear();
        put_histogram(timestamp, start, histogram, &mut self.message);
        put_bytes(4, &self.message, &mut self.series);
    }

    pub fn exemplar(&mut self, timestamp: Timestamp, value: f64, labels: &[u8]) {
        self.message.clear();
        put_labels(labels, &mut self.message);
        put_double(2, value, &mut self.message);
        self.message.push(3 << 3);
        put_varint(timestamp as u64, &mut self.message);
        put_bytes(3, &self.message, &mut self.series);
    }

    /// Ends the series.
    pub fn end(&mut self) {
        put_bytes(1, &self.series, &mut self.body);
    }

    /// The request; `by_tenant` chooses field 4 instead of fields 1 and 2.
    pub fn finish(
        mut self,
        tenant: &str,
        replica: u32,
        by_tenant: bool,
        context: Option<&WriteContext>,
    ) -> Vec<u8> {
        put_bytes(2, tenant.as_bytes(), &mut self.body);
        let mut out = if by_tenant {
            let mut out = Vec::with_capacity(self.body.len() + 64);
            put_bytes(4, &self.body, &mut out);
            out
        } else {
            self.body
        };
        out.push(3 << 3);
        put_varint(replica as u64, &mut out);
        if let Some(context) = context {
            put_varint((OURS << 3 | 2) as u64, &mut out);
            let context = context.encode_to_vec();
            put_varint(context.len() as u64, &mut out);
            out.extend_from_slice(&context);
        }
        out
    }
}

/// Canonical label bytes as fields 1.
fn put_labels(labels: &[u8], out: &mut Vec<u8>) {
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, value);
        (name, rest) = split_text(rest);
        (value, rest) = split_text(rest);
        // Both already carry their lengths as protobuf writes them.
        out.push(1 << 3 | 2);
        put_varint((2 + name.len() + value.len()) as u64, out);
        out.push(1 << 3 | 2);
        out.extend_from_slice(name);
        out.push(2 << 3 | 2);
        out.extend_from_slice(value);
    }
}

/// One text with its length before it, and what follows. Bytes that are no labels give what there is.
fn split_text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (mut len, mut at) = (0usize, 0);
    for &byte in bytes.iter().take(4) {
        len |= ((byte & 0x7f) as usize) << (7 * at);
        at += 1;
        if byte < 0x80 {
            break;
        }
    }
    bytes.split_at((at + len).min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use model::histogram::{FloatHistogram, Histogram, ResetHint, Span};
    use proptest::prelude::*;

    use super::super::RequestWalk;
    use super::*;
    use crate::pb::prometheus_copy::TimeSeries;
    use crate::pb::thanos::{TimeSeriesTenantTuple, WriteRequest};

    fn series(name: &str) -> TimeSeries {
        let label = crate::pb::thanos::Label { name: "__name__".to_owned(), value: name.to_owned() };
        let sample = crate::pb::prometheus_copy::Sample { value: 1.0, timestamp: 7 };
        TimeSeries { labels: vec![label], samples: vec![sample], ..Default::default() }
    }

    fn shown(body: &[u8]) -> Vec<(String, usize)> {
        let mut out = PeerWrite::default();
        decode_peer(body, &Limits::default(), &mut out).unwrap();
        out.groups().map(|(tenant, series)| (tenant.to_owned(), series.len())).collect()
    }

    #[test]
    fn both_shapes_and_which_wins() {
        let tuple = |tenant: &str| TimeSeriesTenantTuple {
            timeseries: vec![series("a"), series("b")],
            tenant: tenant.to_owned(),
        };
        let old = WriteRequest {
            timeseries: vec![series("a")],
            tenant: "t".to_owned(),
            replica: 2,
            ..Default::default()
        };
        assert_eq!(shown(&old.encode_to_vec()), [("t".to_owned(), 1)]);
        let both = WriteRequest { timeseries_tenant_data: vec![tuple("x"), tuple("y")], ..old.clone() };
        assert_eq!(shown(&both.encode_to_vec()), [("x".to_owned(), 2), ("y".to_owned(), 2)]);
        // The envelope says the same of both, and its stretches hold the series.
        for request in [old.clone(), both] {
            let body = request.encode_to_vec();
            let envelope = peer_envelope(&body).unwrap();
            assert_eq!((envelope.replica, envelope.is_ours), (2, false));
            let limits = Limits::default();
            let series = |range: &Range<usize>| {
                let mut columns = DecodedV1::default();
                let mut walk = RequestWalk::of_peer(&body[range.clone()], &limits, &mut columns).unwrap();
                let mut count = 0;
                while walk.next_series(&mut columns).unwrap().is_some() {
                    count += 1;
                }
                count
            };
            let counts: Vec<_> =
                envelope.groups.iter().map(|(t, range)| (t.clone(), series(range))).collect();
            assert_eq!(counts, shown(&body));
        }
        assert_eq!(peer_envelope(&[]).unwrap(), PeerEnvelope::default());
        assert_eq!(shown(&[]), []);
    }

    fn natives() -> Vec<Native> {
        let spans =
            |list: &[(i32, u32)]| list.iter().map(|&(offset, length)| Span { offset, length }).collect();
        let whole = Histogram {
            schema: -4,
            zero_threshold: 0.001,
            zero_count: 3,
            count: u64::MAX / 2 + 9,
            sum: -0.0,
            hint: ResetHint::Reset,
            positive_spans: spans(&[(-7, 2), (3, 1)]),
            positive_deltas: vec![1, 1, -1],
            negative_spans: spans(&[(0, 1)]),
            negative_deltas: vec![i64::MAX - 4],
            custom_values: [].into(),
        };
        let whole = Histogram { sum: 1.5, count: 3 + 4 + (i64::MAX as u64 - 4), ..whole };
        let float = FloatHistogram {
            schema: 8,
            count: -0.0,
            sum: f64::INFINITY,
            hint: ResetHint::Gauge,
            positive_spans: spans(&[(i32::MIN / 2, 2)]),
            positive_counts: vec![0.5, -0.0],
            ..FloatHistogram::default()
        };
        let custom = Histogram {
            schema: -53,
            count: 2,
            hint: ResetHint::NotReset,
            positive_spans: spans(&[(1, 1)]),
            positive_deltas: vec![2],
            custom_values: [0.1, 1e300].into(),
            ..Histogram::default()
        };
        let (whole, float) = (Native::Whole(whole), Native::Float(float));
        vec![
            whole.stale(),
            float.stale(),
            whole.zeroed(),
            float.zeroed(),
            whole,
            float,
            Native::Whole(custom),
        ]
    }

    #[test]
    fn encoded_requests_read_back() {
        let long = "x".repeat(300);
        let labels = Labels::from_pairs([("__name__", "up"), ("pod", &long)]).unwrap();
        let samples = [Sample { timestamp: -5, value: f64::NAN }, Sample { timestamp: 9, value: -0.0 }];
        for by_tenant in [false, true] {
            let mut encoder = PeerEncoder::default();
            encoder.push(labels.as_bytes(), &samples);
            encoder.begin(labels.as_bytes());
            encoder.sample(samples[0], 77);
            let natives = natives();
            for (at, native) in natives.iter().enumerate() {
                encoder.histogram(at as i64 - 1, at as i64 * 5, native);
            }
            encoder.exemplar(-8, -0.0, Labels::from_pairs([("trace_id", "é")]).unwrap().as_bytes());
            encoder.exemplar(9, 0.5, &[]);
            encoder.end();
            let context = WriteContext {
                judged_at_ms: 77,
                door: "d".to_owned(),
                all_kinds: true,
                metadata: Vec::new(),
                spliced: false,
                asks: false,
                pairs: Vec::new(),
                ring_epoch: 9,
            };
            let body = encoder.finish("t", 3, by_tenant, Some(&context));
            let mut out = PeerWrite::default();
            decode_peer(&body, &Limits::default(), &mut out).unwrap();
            assert_eq!((out.replica, out.context.as_ref()), (3, Some(&context)));
            let groups: Vec<_> = out.groups().collect();
            assert_eq!((groups.len(), groups[0].0, groups[0].1.len()), (1, "t", 2));
            let mut canonical = Vec::new();
            out.columns.canonical(&groups[0].1[0], &body, &mut canonical).unwrap();
            assert_eq!(canonical, labels.as_bytes());
            assert_eq!(out.columns.samples()[..2], samples);
            assert_eq!((out.columns.start_timestamp(1), out.columns.start_timestamp(2)), (0, 77));
            let full = &groups[0].1[1];
            let read = out.columns.histograms_of(full);
            assert_eq!(read.len(), natives.len());
            for (at, (one, native)) in read.iter().zip(&natives).enumerate() {
                assert_eq!((one.timestamp, one.start_timestamp), (at as i64 - 1, at as i64 * 5));
                assert_eq!(one.histogram.as_ref().unwrap(), native);
                assert_eq!(one.histogram.as_ref().unwrap().hint(), native.hint());
            }
            let exemplars = out.columns.exemplars_of(full);
            assert_eq!((exemplars[0].timestamp, exemplars[0].value.to_bits()), (-8, (-0.0f64).to_bits()));
            assert_eq!(
                out.columns.exemplar_labels(&exemplars[0], &body).collect::<Vec<_>>(),
                [(&b"trace_id"[..], "é".as_bytes())]
            );
            assert_eq!(out.columns.exemplar_labels(&exemplars[1], &body).count(), 0);
            // And a protobuf library agrees.
            let pb = WriteRequest::decode(&body[..]).unwrap();
            assert_eq!(pb.timeseries_tenant_data.len(), by_tenant as usize);
            assert_eq!(pb.tributary, Some(context));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let read = decode_peer(&body, &Limits::default(), &mut PeerWrite::default());
            // Whatever decodes has an envelope.
            prop_assert!(read.is_err() || peer_envelope(&body).is_ok());
            let mut encoder = PeerEncoder::default();
            encoder.push(&body, &[]);
            encoder.finish("t", 0, false, None);
        }
    }
}
