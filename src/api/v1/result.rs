//! The value of a query as JSON: vectors, matrices, scalars and strings, with figures on demand.

use std::time::Duration;

use promql::{Point, Stats, Value};
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
    begun: bool,
    /// The next element, and the next point in it.
    at: (usize, usize),
    /// The result's bytes in the query's budget, given back when it has been sent.
    _held: Option<Reservation>,
}

impl QueryData {
    pub fn new(value: Value, timings: Option<Timings>, held: Option<Reservation>) -> QueryData {
        QueryData { value, timings, begun: false, at: (0, 0), _held: held }
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
                    out.extend_from_slice(b",\"value\":");
                    point(out, &sample.point);
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
                        out.extend_from_slice(b",\"values\":[");
                    }
                    while *inner < one.points.len() {
                        if out.len() >= until && *inner > 0 {
                            return false;
                        }
                        if *inner > 0 {
                            out.push(b',');
                        }
                        point(out, &one.points[*inner]);
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

/// Scalars and strings carry their time as a plain float, without padding.
fn scalar_time(out: &mut Vec<u8>, ms: i64) {
    number::json_float(out, ms as f64 / 1000.0);
}

fn stats(out: &mut Vec<u8>, timings: &Timings) {
    let Stats { samples, peak_samples, prepare, evaluate, sort, .. } = timings.stats;
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
    let counts =
        format!("}},\"samples\":{{\"totalQueryableSamples\":{samples},\"peakSamples\":{peak_samples}}}}}");
    out.extend_from_slice(counts.as_bytes());
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use promql::{Series, VectorSample};

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
        let sample = VectorSample { labels: up("a"), point: Point { t: t - 370, v: f64::NAN } };
        assert_eq!(
            shown(Value::Vector(vec![sample]), 1000),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[1795220319.380,"NaN"]}]}"#
        );
    }

    #[test]
    fn pieces_of_any_size_make_the_same_text() {
        let points = |n: i64| (0..n).map(|t| Point { t: t * 15_000, v: t as f64 / 3.0 }).collect();
        let matrix = Value::Matrix(vec![
            Series { labels: up("a"), points: points(7) },
            Series { labels: Labels::empty(), points: points(1) },
            Series { labels: up("b"), points: points(3) },
        ]);
        let whole = shown(matrix.clone(), usize::MAX);
        assert!(serde_json::from_str::<serde_json::Value>(&whole).is_ok(), "{whole}");
        for until in [1, 10, 64, 100, 200] {
            assert_eq!(shown(matrix.clone(), until), whole, "{until}");
        }
    }
}
