//! The data set and the generator of random queries over it.

use bytes::Bytes;
use chunk::histogram::{At, encode_floats, encode_ints};
use chunk::{ChunkData, Encoding};
use model::histogram::{CUSTOM_BUCKETS, Histogram, ResetHint, Span};
use model::{FloatHistogram, Labels, Sample, TimeRange, stale_nan};

/// The data reaches from here (milliseconds) ...
pub const START: i64 = 1_700_000_000_000;
/// ... to here.
pub const END: i64 = START + 3_600_000;
const INTERVAL: i64 = 30_000;
const STEPS: i64 = (END - START) / INTERVAL;

/// Splitmix64: the same numbers everywhere.
pub struct Generator(u64);

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).expect("labels")
}

fn floats(samples: Vec<Sample>) -> Vec<ChunkData> {
    samples
        .chunks(120)
        .map(|part| ChunkData {
            range: TimeRange::new(part[0].timestamp, part[part.len() - 1].timestamp),
            encoding: Encoding::Xor,
            bytes: Bytes::from(chunk::xor::encode(part.iter().copied()).expect("a chunk")),
        })
        .collect()
}

/// Times of one series: every 30 s with a jitter, now and then none.
fn times(series: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..STEPS)
        .filter(move |i| (i * 7 + series * 13) % 41 != 0 && !(series % 4 == 3 && (40..55).contains(i)))
        .map(move |i| (i, START + i * INTERVAL + (i * 31 + series * 977) % 900))
}

fn spans(offset: i32, length: usize) -> Vec<Span> {
    vec![Span { offset, length: length as u32 }]
}

/// A counter histogram at step `i`; `resets` are the steps at which it begins anew.
fn counter(i: i64, schema: i32, series: i64, resets: &[i64]) -> Histogram {
    // Far from 0 even after a reset: where the line through the samples meets 0, versions differ.
    let since = i - resets.iter().copied().filter(|r| *r <= i).max().unwrap_or(0) + 200;
    let counts: Vec<i64> = (0..6).map(|b| since * (b + series % 3) / 2).collect();
    let negative: Vec<i64> = (0..3).map(|b| since * b / 3).collect();
    let zero = since as u64 / 3;
    let deltas = |counts: &[i64]| {
        let mut before = 0;
        counts.iter().map(|c| c - std::mem::replace(&mut before, *c)).collect::<Vec<_>>()
    };
    Histogram {
        schema,
        zero_threshold: 0.001,
        zero_count: zero,
        count: zero + counts.iter().sum::<i64>() as u64 + negative.iter().sum::<i64>() as u64,
        sum: since as f64 * 1.7 + (series as f64) * 0.3,
        positive_spans: spans(-2 + series as i32 % 2, counts.len()),
        negative_spans: spans(1, negative.len()),
        positive_deltas: deltas(&counts),
        negative_deltas: deltas(&negative),
        ..Histogram::default()
    }
}

fn gauge(i: i64, series: i64) -> FloatHistogram {
    let counts: Vec<f64> = (0..5).map(|b| ((i * (b + 3) + series) % 17) as f64 / 2.0 + 0.5).collect();
    FloatHistogram {
        schema: 1,
        zero_threshold: 0.01,
        zero_count: (i % 3) as f64,
        count: counts.iter().sum::<f64>() + (i % 3) as f64,
        sum: (i % 29) as f64 * 1.5 - 4.0,
        hint: ResetHint::Gauge,
        positive_spans: spans(series as i32, counts.len()),
        positive_counts: counts,
        ..FloatHistogram::default()
    }
}

fn custom(i: i64, series: i64) -> FloatHistogram {
    let since = (i % 50) as f64 + 200.0;
    let counts: Vec<f64> = (0..4).map(|b| since * (b as f64 + series as f64 + 1.0)).collect();
    FloatHistogram {
        schema: CUSTOM_BUCKETS,
        count: counts.iter().sum(),
        sum: since * 9.25,
        positive_spans: spans(0, counts.len()),
        positive_counts: counts,
        custom_values: [0.5, 1.0, 5.0].into(),
        ..FloatHistogram::default()
    }
}

/// All series, sorted by labels.
pub fn data() -> Vec<(Labels, Vec<ChunkData>)> {
    let mut out: Vec<(Labels, Vec<ChunkData>)> = Vec::new();
    let mut series = 0;
    let mut float = |out: &mut Vec<_>, pairs: &[(&str, &str)], value: &dyn Fn(i64, i64) -> f64| {
        series += 1;
        let samples = times(series).map(|(i, timestamp)| Sample { timestamp, value: value(i, series) });
        out.push((labels(pairs), floats(samples.collect())));
    };
    for job in ["api", "db"] {
        for instance in ["a:1", "b:2", "c:3"] {
            for path in ["/x", "/y"] {
                let pairs =
                    [("__name__", "requests_total"), ("job", job), ("instance", instance), ("path", path)];
                float(&mut out, &pairs, &|i, s| ((i % (45 + s)) * (s + 1)) as f64 + 0.25 * s as f64);
            }
            let pairs = [("__name__", "temperature"), ("job", job), ("instance", instance)];
            float(&mut out, &pairs, &|i, s| match (i + s) % 37 {
                5 if s % 5 == 0 => f64::NAN,
                9 if s % 7 == 0 => f64::INFINITY,
                11 => stale_nan(),
                at => ((at * 7 + s) % 23) as f64 * 1.25 - 9.0,
            });
            let pairs = [
                ("__name__", "build_info"),
                ("job", job),
                ("instance", instance),
                ("version", if job == "api" { "1" } else { "2" }),
            ];
            float(&mut out, &pairs, &|_, _| 1.0);
        }
        for (at, le) in ["0.1", "0.5", "1", "5", "+Inf"].into_iter().enumerate() {
            let pairs = [("__name__", "classic_bucket"), ("job", job), ("le", le)];
            float(&mut out, &pairs, &|i, _| (i * (at as i64 + 1)) as f64);
        }
        for (instance, schema) in [("a:1", 0), ("b:2", 2), ("c:3", -1)] {
            let id = schema as i64 + 3 + job.len() as i64;
            let all = times(id)
                .map(|(i, timestamp)| At { timestamp, histogram: counter(i, schema, id, &[0, 37, 80]) });
            let pairs = [("__name__", "latency"), ("job", job), ("instance", instance)];
            out.push((labels(&pairs), encode_ints(all, 120).expect("chunks")));
        }
        let id = job.len() as i64;
        let all = times(id).map(|(i, timestamp)| At { timestamp, histogram: gauge(i, id) });
        out.push((labels(&[("__name__", "sizes"), ("job", job)]), encode_floats(all, 120).expect("chunks")));
        let all = times(id + 1).map(|(i, timestamp)| At { timestamp, histogram: custom(i, id) });
        out.push((labels(&[("__name__", "custom"), ("job", job)]), encode_floats(all, 120).expect("chunks")));
        // Floats, then histograms, then floats again.
        let (before, rest): (Vec<_>, Vec<_>) = times(id + 2).partition(|(i, _)| *i < 40);
        let (between, after): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(i, _)| *i < 80);
        let plain = |times: Vec<(i64, i64)>| {
            floats(
                times.into_iter().map(|(i, timestamp)| Sample { timestamp, value: i as f64 * 0.5 }).collect(),
            )
        };
        let natives =
            between.into_iter().map(|(i, timestamp)| At { timestamp, histogram: counter(i, 1, id, &[0]) });
        let chunks = [plain(before), encode_ints(natives, 120).expect("chunks"), plain(after)].concat();
        out.push((labels(&[("__name__", "changing"), ("job", job)]), chunks));
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        // Far apart: seeds that are neighbours must not be places of one sequence.
        Generator((seed ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(0xd129_0d3b_2a5b_94e5).rotate_left(29))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn pick<'p>(&mut self, from: &[&'p str]) -> &'p str {
        from[self.below(from.len())]
    }

    /// A query.
    pub fn query(&mut self) -> String {
        let depth = 1 + self.below(3);
        match self.below(20) {
            0 => self.scalar(depth),
            _ => self.vector(depth),
        }
    }

    fn selector(&mut self) -> String {
        let name = self.pick(&[
            "requests_total",
            "temperature",
            "build_info",
            "classic_bucket",
            "latency",
            "latency",
            "sizes",
            "custom",
            "changing",
            "{job=\"api\"}",
            "{__name__=~\"latency|custom|temperature\"}",
        ]);
        let matchers = self.pick(&[
            "",
            "",
            "",
            "{job=\"api\"}",
            "{job!=\"api\"}",
            "{instance=~\"a.*|b.*\"}",
            "{instance!~\"c.*\"}",
            "{path=\"/x\"}",
        ]);
        match name.starts_with('{') {
            true => name.to_owned(),
            false => format!("{name}{matchers}"),
        }
    }

    fn modifiers(&mut self) -> String {
        match self.below(12) {
            0 => format!(" offset {}", self.pick(&["1m", "7m", "-3m", "90s"])),
            1 => format!(" @ {}", (START + 600_000 * self.below(6) as i64) / 1000),
            2 => format!(" @ {}", self.pick(&["start()", "end()"])),
            _ => String::new(),
        }
    }

    fn window(&mut self) -> &'static str {
        self.pick(&["1m", "2m30s", "5m", "10m", "20m", "45s"])
    }

    fn matrix(&mut self, depth: usize) -> String {
        if depth > 0 && self.below(4) == 0 {
            let inner = self.vector(depth - 1);
            let step = self.pick(&["", "30s", "1m", "77s"]);
            return format!("({inner})[{}:{step}]{}", self.window(), self.modifiers());
        }
        format!("{}[{}]{}", self.selector(), self.window(), self.modifiers())
    }

    fn number(&mut self) -> &'static str {
        self.pick(&["0", "1", "2", "0.5", "-1", "3.7", "10", "100", "1e3", "NaN", "Inf", "-Inf"])
    }

    fn scalar(&mut self, depth: usize) -> String {
        match self.below(8) {
            0 if depth > 0 => format!("scalar({})", self.vector(depth - 1)),
            1 => "time()".to_owned(),
            2 if depth > 0 => format!(
                "({} {} {})",
                self.scalar(depth - 1),
                self.pick(&["+", "-", "*", "/", "%", "^"]),
                self.scalar(depth - 1)
            ),
            3 => "pi()".to_owned(),
            _ => self.number().to_owned(),
        }
    }

    fn grouping(&mut self) -> String {
        match self.below(4) {
            0 => String::new(),
            1 => format!(" without ({})", self.pick(&["instance", "job, path", "le", "instance, path"])),
            _ => format!(
                " by ({})",
                self.pick(&["job", "instance", "job, instance", "le, job", "path", "nothing"])
            ),
        }
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return format!("{}{}", self.selector(), self.modifiers());
        }
        let inner = depth - 1;
        match self.below(14) {
            0 | 1 => format!("{}{}", self.selector(), self.modifiers()),
            2..=5 => self.over_time(inner),
            6 | 7 => self.aggregate(inner),
            8 | 9 => self.call(inner),
            10 => self.scalar_operation(inner),
            11 | 12 => self.operation(inner),
            _ => format!("-({})", self.vector(inner)),
        }
    }

    fn over_time(&mut self, depth: usize) -> String {
        let matrix = self.matrix(depth);
        match self.below(28) {
            0 => format!("quantile_over_time({}, {matrix})", self.pick(&["0", "0.5", "0.9", "1", "1.5"])),
            1 => format!("predict_linear({matrix}, {})", self.pick(&["0", "60", "3600"])),
            2 => format!("absent_over_time({matrix})"),
            _ => {
                let function = self.pick(&[
                    "rate",
                    "rate",
                    "rate",
                    "increase",
                    "increase",
                    "delta",
                    "irate",
                    "idelta",
                    "resets",
                    "changes",
                    "sum_over_time",
                    "avg_over_time",
                    "min_over_time",
                    "max_over_time",
                    "count_over_time",
                    "stddev_over_time",
                    "stdvar_over_time",
                    "last_over_time",
                    "present_over_time",
                    "deriv",
                    "mad_over_time",
                ]);
                format!("{function}({matrix})")
            }
        }
    }

    fn aggregate(&mut self, depth: usize) -> String {
        let grouping = self.grouping();
        match self.below(12) {
            0 => {
                format!("quantile{grouping} ({}, {})", self.pick(&["0.1", "0.5", "0.99"]), self.vector(depth))
            }
            1 => format!(
                "{}{grouping} ({}, {})",
                self.pick(&["topk", "bottomk"]),
                self.pick(&["1", "2", "5"]),
                self.selector()
            ),
            2 => format!("count_values{grouping} (\"value\", {})", self.selector()),
            _ => {
                let op = self.pick(&[
                    "sum", "sum", "sum", "avg", "avg", "min", "max", "count", "group", "stddev", "stdvar",
                ]);
                format!("{op}{grouping} ({})", self.vector(depth))
            }
        }
    }

    fn call(&mut self, depth: usize) -> String {
        let vector = self.vector(depth);
        match self.below(16) {
            0 | 1 => format!(
                "histogram_quantile({}, {vector})",
                self.pick(&["0", "0.1", "0.5", "0.9", "1", "-1", "2"])
            ),
            2 | 3 => format!(
                "histogram_fraction({}, {}, {vector})",
                self.pick(&["-Inf", "-1", "0", "0.3"]),
                self.pick(&["0.2", "1", "7", "+Inf"])
            ),
            4 => format!("clamp({vector}, {}, {})", self.number(), self.number()),
            5 => format!(
                "{}({vector}, {})",
                self.pick(&["clamp_min", "clamp_max", "round"]),
                self.pick(&["1", "0.1", "5", "-3"])
            ),
            6 => format!(
                "label_replace({vector}, \"{}\", \"$1-x\", \"{}\", \"(.*):.*|a(.*)\")",
                self.pick(&["new", "job", "instance"]),
                self.pick(&["instance", "job", "none"])
            ),
            7 => format!(
                "label_join({vector}, \"{}\", \"-\", \"job\", \"instance\")",
                self.pick(&["new", "job"])
            ),
            8 => format!("vector({})", self.scalar(depth)),
            9 => format!("absent({vector})"),
            // Of times only: dates of NaN and infinity are chance in Go.
            10 => format!("{}(timestamp({vector}))", self.pick(&["hour", "minute", "day_of_week", "year"])),
            _ => {
                let function = self.pick(&[
                    "histogram_count",
                    "histogram_count",
                    "histogram_sum",
                    "histogram_avg",
                    "histogram_stddev",
                    "histogram_stdvar",
                    "abs",
                    "ceil",
                    "floor",
                    "sqrt",
                    "exp",
                    "ln",
                    "log2",
                    "sgn",
                    "timestamp",
                    "sort",
                    "sort_desc",
                    "deg",
                    "sin",
                    "tanh",
                ]);
                format!("{function}({vector})")
            }
        }
    }

    fn scalar_operation(&mut self, depth: usize) -> String {
        let op = self.pick(&[
            "+", "-", "*", "*", "/", "/", "%", "^", "==", "!=", ">", "<=", "> bool", "== bool", "atan2",
        ]);
        let (vector, scalar) = (self.vector(depth), self.scalar(depth.min(1)));
        match self.below(2) {
            0 => format!("({vector}) {op} ({scalar})"),
            _ => format!("({scalar}) {op} ({vector})"),
        }
    }

    fn operation(&mut self, depth: usize) -> String {
        let (left, right) = (self.vector(depth), self.vector(depth));
        if self.below(3) == 0 {
            let matching = self.pick(&["", "on (job)", "ignoring (path, le)", "on (instance)"]);
            return format!("({left}) {} {matching} ({right})", self.pick(&["and", "or", "unless"]));
        }
        let op = self.pick(&["+", "+", "-", "-", "*", "/", "==", "!=", ">", "> bool", "== bool", "!= bool"]);
        let matching = self.pick(&[
            "",
            "",
            "on (job, instance)",
            "on (job, instance) group_left ()",
            "ignoring (path)",
            "on (job, instance) group_left (version)",
            "on (instance) group_right ()",
            "ignoring (le, path, version)",
        ]);
        format!("({left}) {op} {matching} ({right})")
    }
}
