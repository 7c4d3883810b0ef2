//! Requests of remote write 1.0 and 2.0 under construction. Times are told from the beginning of a case.

use prost::Message;
use wire::pb::io::prometheus::write::v2;
use wire::pb::prometheus as v1;

use super::field;

pub const TWO: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

type Labels<'a> = &'a [(&'a str, &'a str)];

/// A request as it goes out.
pub struct Sent {
    pub method: &'static str,
    pub path: &'static str,
    headers: Vec<(String, String)>,
    body: Body,
    pack: fn(&[u8]) -> Vec<u8>,
    spoil: fn(&mut Vec<u8>),
}

enum Body {
    One(One),
    Two(Two),
    Raw(Vec<u8>),
}

fn snappy(plain: &[u8]) -> Vec<u8> {
    wire::remote_write::compress(plain).unwrap()
}

impl Sent {
    fn new(body: Body, headers: &[(&str, &str)]) -> Sent {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Sent { method: "POST", path: "/api/v1/write", headers, body, pack: snappy, spoil: |_| {} }
    }

    /// With a header instead of the one that it has; without it where `value` is empty.
    pub fn header(mut self, name: &str, value: &str) -> Sent {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub fn method(mut self, method: &'static str) -> Sent {
        self.method = method;
        self
    }

    pub fn path(mut self, path: &'static str) -> Sent {
        self.path = path;
        self
    }

    /// Compressed otherwise, and named so.
    pub fn packed(mut self, encoding: &str, pack: fn(&[u8]) -> Vec<u8>) -> Sent {
        self.pack = pack;
        self.header("Content-Encoding", encoding)
    }

    /// With bytes of the body changed.
    pub fn spoiled(mut self, spoil: fn(&mut Vec<u8>)) -> Sent {
        self.spoil = spoil;
        self
    }

    /// Headers and body, for a case that began at `base`.
    pub fn at(&self, base: i64) -> (Vec<(String, String)>, Vec<u8>) {
        let plain = match &self.body {
            Body::One(one) => one.at(base),
            Body::Two(two) => two.at(base),
            Body::Raw(bytes) => bytes.clone(),
        };
        let mut body = (self.pack)(&plain);
        (self.spoil)(&mut body);
        (self.headers.clone(), body)
    }
}

/// Bytes that are what they are, under the headers of 1.0.
pub fn raw(body: &[u8]) -> Sent {
    let mut sent = Sent::from(One::default());
    (sent.body, sent.pack) = (Body::Raw(body.to_vec()), <[u8]>::to_vec);
    sent
}

impl From<One> for Sent {
    fn from(one: One) -> Sent {
        let headers = [("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf")];
        Sent::new(Body::One(one), &headers)
    }
}

impl From<Two> for Sent {
    fn from(two: Two) -> Sent {
        let headers = [
            ("Content-Encoding", "snappy"),
            ("Content-Type", TWO),
            ("X-Prometheus-Remote-Write-Version", "2.0.0"),
        ];
        Sent::new(Body::Two(two), &headers)
    }
}

/// A time, or none where it is 0.
fn moved(base: i64, start: i64) -> i64 {
    if start == 0 { 0 } else { base + start }
}

/// A request of 2.0.
#[derive(Clone, Default)]
pub struct Two {
    symbols: Vec<String>,
    /// With what follows the known fields of each.
    series: Vec<(v2::TimeSeries, Vec<u8>)>,
}

/// A series with labels in the order given, to which the following calls add.
pub fn two(labels: Labels<'_>) -> Two {
    Two { symbols: vec![String::new()], series: Vec::new() }.and(labels)
}

impl Two {
    pub fn empty() -> Two {
        Two::default()
    }

    fn symbol(&mut self, text: &str) -> u32 {
        let at = self.symbols.iter().position(|s| s == text).unwrap_or_else(|| {
            self.symbols.push(text.to_owned());
            self.symbols.len() - 1
        });
        at as u32
    }

    fn refs(&mut self, labels: Labels<'_>) -> Vec<u32> {
        labels.iter().flat_map(|(n, v)| [self.symbol(n), self.symbol(v)]).collect()
    }

    /// Begins another series.
    pub fn and(mut self, labels: Labels<'_>) -> Two {
        let labels_refs = self.refs(labels);
        self.series.push((v2::TimeSeries { labels_refs, ..Default::default() }, Vec::new()));
        self
    }

    /// Changes the last series.
    pub fn with(mut self, change: impl FnOnce(&mut v2::TimeSeries)) -> Two {
        change(&mut self.series.last_mut().unwrap().0);
        self
    }

    pub fn float(self, timestamp: i64, value: f64) -> Two {
        self.started(timestamp, value, 0)
    }

    /// A sample that says when counting began.
    pub fn started(self, timestamp: i64, value: f64, start_timestamp: i64) -> Two {
        self.with(|series| series.samples.push(v2::Sample { value, timestamp, start_timestamp }))
    }

    pub fn histogram(self, timestamp: i64, histogram: v2::Histogram) -> Two {
        self.with(|series| series.histograms.push(v2::Histogram { timestamp, ..histogram }))
    }

    pub fn exemplar(mut self, timestamp: i64, value: f64, labels: Labels<'_>) -> Two {
        let labels_refs = self.refs(labels);
        self.with(|series| series.exemplars.push(v2::Exemplar { labels_refs, value, timestamp }))
    }

    /// `kind` as the protocol numbers it.
    pub fn metadata(mut self, kind: i32, help: &str, unit: &str) -> Two {
        let (help_ref, unit_ref) = (self.symbol(help), self.symbol(unit));
        self.with(|series| series.metadata = Some(v2::Metadata { r#type: kind, help_ref, unit_ref }))
    }

    /// Adds bytes behind the last series' fields.
    pub fn trailing(mut self, bytes: &[u8]) -> Two {
        self.series.last_mut().unwrap().1.extend(bytes);
        self
    }

    /// Without the empty text that the table must begin with; its number goes to another.
    pub fn without_empty_symbol(mut self) -> Two {
        self.symbols.remove(0);
        for reference in self.series.iter_mut().flat_map(|(s, _)| &mut s.labels_refs) {
            *reference -= 1;
        }
        self
    }

    fn at(&self, base: i64) -> Vec<u8> {
        let mut out = Vec::new();
        for symbol in &self.symbols {
            out.push(4 << 3 | 2);
            prost::encoding::encode_varint(symbol.len() as u64, &mut out);
            out.extend(symbol.as_bytes());
        }
        for (series, trailing) in &self.series {
            let mut series = series.clone();
            for sample in &mut series.samples {
                sample.timestamp += base;
                sample.start_timestamp = moved(base, sample.start_timestamp);
            }
            for histogram in &mut series.histograms {
                histogram.timestamp += base;
                histogram.start_timestamp = moved(base, histogram.start_timestamp);
            }
            series.exemplars.iter_mut().for_each(|exemplar| exemplar.timestamp += base);
            let mut message = series.encode_to_vec();
            message.extend(trailing);
            out.push(5 << 3 | 2);
            prost::encoding::encode_varint(message.len() as u64, &mut out);
            out.extend(message);
        }
        out
    }
}

/// A request of 1.0.
#[derive(Clone, Default)]
pub struct One {
    request: v1::WriteRequest,
    trailing: Vec<u8>,
}

/// As [`two`].
pub fn one(labels: Labels<'_>) -> One {
    One::default().and(labels)
}

fn pairs(labels: Labels<'_>) -> Vec<v1::Label> {
    labels.iter().map(|(n, v)| v1::Label { name: n.to_string(), value: v.to_string() }).collect()
}

impl One {
    pub fn empty() -> One {
        One::default()
    }

    pub fn and(mut self, labels: Labels<'_>) -> One {
        self.request.timeseries.push(v1::TimeSeries { labels: pairs(labels), ..Default::default() });
        self
    }

    fn with(mut self, change: impl FnOnce(&mut v1::TimeSeries)) -> One {
        change(self.request.timeseries.last_mut().unwrap());
        self
    }

    pub fn float(self, timestamp: i64, value: f64) -> One {
        self.with(|series| series.samples.push(v1::Sample { value, timestamp }))
    }

    /// The message is that of 2.0 but for the start.
    pub fn histogram(self, timestamp: i64, histogram: v2::Histogram) -> One {
        let bytes = v2::Histogram { timestamp, start_timestamp: 0, ..histogram }.encode_to_vec();
        self.with(|series| series.histograms.push(v1::Histogram::decode(&bytes[..]).unwrap()))
    }

    pub fn exemplar(self, timestamp: i64, value: f64, labels: Labels<'_>) -> One {
        self.with(|series| series.exemplars.push(v1::Exemplar { labels: pairs(labels), value, timestamp }))
    }

    pub fn metadata(mut self, metric: &str, kind: i32, help: &str, unit: &str) -> One {
        self.request.metadata.push(v1::MetricMetadata {
            r#type: kind,
            metric_family_name: metric.to_owned(),
            help: help.to_owned(),
            unit: unit.to_owned(),
        });
        self
    }

    /// Adds a series whose label names are these bytes.
    pub fn bytes(mut self, name: &[u8]) -> One {
        let text = |number: u8, text: &[u8]| [&[number << 3 | 2, text.len() as u8], text].concat();
        let label = |n: &[u8], v: &[u8]| text(1, &[text(1, n), text(2, v)].concat());
        let sample = v1::Sample { value: 1.0, timestamp: 0 };
        let message = [label(b"__name__", b"up"), label(name, b"x"), field(2, &sample)].concat();
        self.trailing.extend(text(1, &message));
        self
    }

    /// Adds bytes behind the request's fields.
    pub fn trailing(mut self, bytes: &[u8]) -> One {
        self.trailing.extend(bytes);
        self
    }

    fn at(&self, base: i64) -> Vec<u8> {
        let mut request = self.request.clone();
        for series in &mut request.timeseries {
            series.samples.iter_mut().for_each(|sample| sample.timestamp += base);
            series.histograms.iter_mut().for_each(|histogram| histogram.timestamp += base);
            series.exemplars.iter_mut().for_each(|exemplar| exemplar.timestamp += base);
        }
        let mut out = request.encode_to_vec();
        out.extend(&self.trailing);
        out
    }
}

fn span(offset: i32, length: u32) -> v2::BucketSpan {
    v2::BucketSpan { offset, length }
}

/// Whole counts on both sides and around zero: 1 + (2 + 3) + 4.
pub fn histogram() -> v2::Histogram {
    v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(10)),
        sum: 18.5,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: Some(v2::histogram::ZeroCount::ZeroCountInt(1)),
        positive_spans: vec![span(0, 1), span(1, 1)],
        positive_deltas: vec![2, 1],
        negative_spans: vec![span(0, 1)],
        negative_deltas: vec![4],
        ..Default::default()
    }
}

/// Six bounds of its own, and the counts 1, 2, 1, 3, 1, 2.
pub fn custom() -> v2::Histogram {
    v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(10)),
        sum: 7.25,
        schema: -53,
        positive_spans: vec![span(0, 6)],
        positive_deltas: vec![1, 1, -1, 2, -2, 1],
        custom_values: vec![0.1, 0.5, 1.0, 2.5, 5.0, 10.0],
        ..Default::default()
    }
}
