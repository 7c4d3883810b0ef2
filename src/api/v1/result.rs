//! The value of a query as JSON: vectors, matrices, scalars and strings, with figures on demand.

use std::time::Duration;

use model::FloatHistogram;
use promql::native::all_buckets;
use promql::{Analysis, Point, Stats, Value};
use storage::Reservation;

use crate::reply::Data;
use crate::{json, number};

/// What the evaluation cost.
pub struct Timings {
    pub stats: Stats,
    /// Time in the queue.
    pub queued: Duration,
}

/// `{"resultType":…,"result":…[,"stats":…]}`, written series by series and, within a long series, point by point.
pub struct QueryData {
    value: Value,
    timings: Option<Timings>,
    analysis: Option<Analysis>,
    begun: bool,
    /// The next element, and the next point in it.
    at: (usize, usize),
    /// The result's bytes in the query's budget, given back when it has been sent.
    _held: Option<Reservation>,
}

impl QueryData {
    pub fn new(value: Value, timings: Option<Timings>, held: Option<Reservation>) -> QueryData {
        QueryData { value, timings, analysis: None, begun: false, at: (0, 0), _held: held }
    }

    /// With what each operator cost.
    pub fn analyzed(self, analysis: Option<Analysis>) -> QueryData {
        QueryData { analysis, ..self }
    }
}

impl Data for QueryData {
    fn write(&mut self, out: &mut Vec<u8>, until: usize) -> bool {
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(b"{\"resultType\":\"");
            out.extend_from_slice(self.value.type_name().as_bytes());
            out.extend_from_slice(b"\",\"result\":[");
        }
        let (element, inner) = &mut self.at;
        match &self.value {
            Value::Scalar(t, v) => {
                scalar_time(out, *t);
                out.extend_from_slice(b",\"");
                number::value(out, *v);
                out.push(b'"');
            }
            Value::String(t, text) => {
                scalar_time(out, *t);
                out.push(b',');
                json::text(out, text);
            }
            Value::Vector(samples) => {
                while *element < samples.len() {
                    if out.len() >= until {
                        return false;
                    }
                    let sample = &samples[*element];
                    out.extend_from_slice(if *element > 0 { b",{\"metric\":" } else { b"{\"metric\":" });
                    json::labels(out, &sample.labels);
                    match &sample.histogram {
                        Some(h) => {
                            out.extend_from_slice(b",\"histogram\":");
                            native(out, sample.point.t, h);
                        }
                        None => {
                            out.extend_from_slice(b",\"value\":");
                            point(out, &sample.point);
                        }
                    }
                    out.push(b'}');
                    *element += 1;
                }
            }
            Value::Matrix(series) => {
                while *element < series.len() {
                    let one = &series[*element];
                    if *inner == 0 {
                        out.extend_from_slice(if *element > 0 { b",{\"metric\":" } else { b"{\"metric\":" });
                        json::labels(out, &one.labels);
                    }
                    let floats = one.points.len();
                    while *inner < floats + one.histograms.len() {
                        if out.len() >= until && *inner > 0 {
                            return false;
                        }
                        match *inner {
                            0 if floats > 0 => out.extend_from_slice(b",\"values\":["),
                            at if at == floats => {
                                out.extend_from_slice(if at > 0 {
                                    b"],\"histograms\":["
                                } else {
                                    b",\"histograms\":["
                                });
                            }
                            _ => out.push(b','),
                        }
                        match one.points.get(*inner) {
                            Some(p) => point(out, p),
                            None => {
                                let p = &one.histograms[*inner - floats];
                                native(out, p.t, &p.h);
                            }
                        }
                        *inner += 1;
                    }
                    out.extend_from_slice(b"]}");
                    (*element, *inner) = (*element + 1, 0);
                }
            }
        }
        out.push(b']');
        if let Some(timings) = &self.timings {
            stats(out, timings);
        }
        if let Some(analysis) = &self.analysis {
            out.extend_from_slice(b",\"analysis\":");
            super::analysis::write(out, analysis);
        }
        out.push(b'}');
        true
    }
}

fn point(out: &mut Vec<u8>, point: &Point) {
    out.push(b'[');
    number::timestamp(out, point.t);
    out.extend_from_slice(b",\"");
    number::value(out, point.v);
    out.extend_from_slice(b"\"]");
}

/// `[time,{"count":…,"sum":…,"buckets":[[rule,"lower","upper","count"],…]}]`; empty buckets are left out.
fn native(out: &mut Vec<u8>, t: i64, h: &FloatHistogram) {
    out.push(b'[');
    number::timestamp(out, t);
    for (name, value) in [(&b",{\"count\":\""[..], h.count), (b"\",\"sum\":\"", h.sum)] {
        out.extend_from_slice(name);
        number::value(out, value);
    }
    out.push(b'"');
    let mut first = true;
    for bucket in all_buckets(h).iter().filter(|b| b.count != 0.0) {
        out.extend_from_slice(if first { b",\"buckets\":[[" } else { b",[" });
        first = false;
        // Which bounds belong to the bucket.
        out.push(match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        });
        for value in [bucket.lower, bucket.upper, bucket.count] {
            out.extend_from_slice(b",\"");
            number::value(out, value);
            out.push(b'"');
        }
        out.push(b']');
    }
    out.extend_from_slice(if first { b"}]" } else { b"]}]" });
}

/// Scalars and strings carry their time as a plain float, without padding.
fn scalar_time(out: &mut Vec<u8>, ms: i64) {
    number::json_float(out, ms as f64 / 1000.0);
}

fn stats(out: &mut Vec<u8>, timings: &Timings) {
    let Stats { samples, ref per_step, peak_samples, prepare, evaluate, sort, .. } = timings.stats;
    let total = prepare + evaluate + sort;
    let seconds = [
        ("evalTotalTime", total),
        ("resultSortTime", sort),
        ("queryPreparationTime", prepare),
        ("innerEvalTime", evaluate),
        ("execQueueTime", timings.queued),
        ("execTotalTime", total + timings.queued),
    ];
    out.extend_from_slice(b",\"stats\":{\"timings\":{");
    for (at, (name, time)) in seconds.into_iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        out.extend_from_slice(format!("{comma}\"{name}\":").as_bytes());
        number::json_float(out, time.as_secs_f64());
    }
    out.extend_from_slice(b"},\"samples\":{");
    for (at, (time, samples)) in per_step.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\"totalQueryableSamplesPerStep\":[[" } else { b",[" });
        scalar_time(out, *time);
        out.extend_from_slice(format!(",{samples}]").as_bytes());
    }
    if !per_step.is_empty() {
        out.extend_from_slice(b"],");
    }
    let counts = format!("\"totalQueryableSamples\":{samples},\"peakSamples\":{peak_samples}}}}}");
    out.extend_from_slice(counts.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Labels;
    use model::histogram::Span;
    use promql::{NativePoint, Series, VectorSample};

    use super::*;

    fn shown(value: Value, until: usize) -> String {
        let mut data = QueryData::new(value, None, None);
        let mut all = Vec::new();
        loop {
            let mut out = Vec::new();
            let done = data.write(&mut out, until);
            all.append(&mut out);
            if done {
                return String::from_utf8(all).unwrap();
            }
        }
    }

    fn up(job: &str) -> Labels {
        Labels::from_pairs([("__name__", "up"), ("job", job)]).unwrap()
    }

    #[test]
    fn values() {
        let t = 1_795_220_319_750;
        assert_eq!(
            shown(Value::Scalar(t, 1.0), 1000),
            r#"{"resultType":"scalar","result":[1795220319.75,"1"]}"#
        );
        assert_eq!(
            shown(Value::String(1000, "a\"".into()), 1000),
            r#"{"resultType":"string","result":[1,"a\""]}"#
        );
        assert_eq!(shown(Value::Vector(vec![]), 1000), r#"{"resultType":"vector","result":[]}"#);
        let point = Point { t: t - 370, v: f64::NAN };
        let sample = VectorSample { labels: up("a"), point, histogram: None };
        assert_eq!(
            shown(Value::Vector(vec![sample]), 1000),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[1795220319.380,"NaN"]}]}"#
        );
    }

    fn histogram() -> Arc<FloatHistogram> {
        let span = |offset, length| Span { offset, length };
        Arc::new(FloatHistogram {
            schema: 1,
            zero_threshold: 0.001,
            zero_count: 2.0,
            count: 9.5,
            sum: -3.0,
            positive_spans: vec![span(0, 2), span(1, 1)],
            negative_spans: vec![span(1, 1)],
            positive_counts: vec![1.0, 0.0, 2.5],
            negative_counts: vec![4.0],
            ..FloatHistogram::default()
        })
    }

    #[test]
    fn histograms() {
        let sample = |h| {
            let point = Point { t: 1000, v: f64::NAN };
            Value::Vector(vec![VectorSample { labels: up("a"), point, histogram: Some(h) }])
        };
        assert_eq!(
            shown(sample(histogram()), 1000),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"histogram":[1,{"count":"9.5","sum":"-3","buckets":[[1,"-1.414213562373095","-1","4"],[3,"-0.001","0.001","2"],[0,"0.7071067811865475","1","1"],[0,"2","2.82842712474619","2.5"]]}]}]}"#
        );
        assert!(shown(sample(Arc::default()), 1000).contains(r#""histogram":[1,{"count":"0","sum":"0"}]"#));
        let custom = FloatHistogram {
            schema: model::histogram::CUSTOM_BUCKETS,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_counts: vec![1.0, 2.0, 3.0],
            custom_values: [0.1, 10.0].into(),
            ..FloatHistogram::default()
        };
        assert!(
            shown(sample(Arc::new(custom)), 1000)
                .contains(r#""buckets":[[3,"-Inf","0.1","1"],[0,"0.1","10","2"],[0,"10","+Inf","3"]]"#)
        );
    }

    #[test]
    fn pieces_of_any_size_make_the_same_text() {
        let points = |n: i64| (0..n).map(|t| Point { t: t * 15_000, v: t as f64 / 3.0 }).collect();
        let series = |labels, points, natives: i64| {
            let histograms = (0..natives).map(|t| NativePoint { t: t * 15_000, h: histogram() }).collect();
            Series { labels, points, histograms }
        };
        let matrix = Value::Matrix(vec![
            series(up("a"), points(7), 0),
            series(Labels::empty(), points(1), 2),
            series(up("b"), points(0), 3),
        ]);
        let whole = shown(matrix.clone(), usize::MAX);
        assert!(serde_json::from_str::<serde_json::Value>(&whole).is_ok(), "{whole}");
        for until in [1, 10, 64, 100, 200] {
            assert_eq!(shown(matrix.clone(), until), whole, "{until}");
        }
    }
}
