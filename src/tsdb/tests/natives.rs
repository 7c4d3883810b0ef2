//! Histograms, exemplars and start timestamps through the whole engine: judged, logged, replayed, cut, read.

mod rig;

use std::collections::BTreeMap;

use model::histogram::{CUSTOM_BUCKETS, Histogram, ResetHint, Span, differences};
use model::{Labels, Matcher, Native, Sample, TimeRange, is_stale, stale_nan};
use proptest::prelude::*;
use rig::*;
use storage::{
    Append, Columns, Context, Exemplars, HistogramColumns, HistogramRow, Refusal, Select, SelectRequest,
    Verdict, WriteBatch, collect, decode_mixed,
};
use tsdb::Settings;

fn whole(first: i32, counts: &[i64]) -> Native {
    let mut positive_deltas = counts.to_vec();
    differences(&mut positive_deltas);
    Native::Whole(Histogram {
        count: counts.iter().sum::<i64>() as u64,
        sum: counts.iter().sum::<i64>() as f64 / 2.0,
        positive_spans: vec![Span { offset: first, length: counts.len() as u32 }],
        positive_deltas,
        ..Histogram::default()
    })
}

#[derive(Clone, Debug)]
enum Any {
    Float(f64),
    Native(Native),
}

impl Any {
    fn is_stale(&self) -> bool {
        match self {
            Any::Float(v) => is_stale(*v),
            Any::Native(h) => h.is_stale(),
        }
    }

    /// As an append compares them; what ends a series is one thing, whatever kind it is sent as.
    fn is_same(&self, other: &Any) -> bool {
        match (self, other) {
            _ if self.is_stale() || other.is_stale() => self.is_stale() && other.is_stale(),
            (Any::Float(a), Any::Float(b)) => a.to_bits() == b.to_bits(),
            (Any::Native(a), Any::Native(b)) => a.is_same(b),
            _ => false,
        }
    }
}

fn labels(series: &str) -> Labels {
    Labels::from_pairs([("__name__", series)]).unwrap()
}

/// One series with what is given.
fn batch(series: &str, samples: &[(i64, Any)]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (timestamp, sample) in samples {
        let timestamp = *timestamp;
        match sample.clone() {
            Any::Float(value) => batch.open().push(Sample { timestamp, value }),
            Any::Native(histogram) => batch.push_histogram(HistogramRow { timestamp, start: 0, histogram }),
        }
    }
    close(&mut batch, series);
    batch
}

fn close(batch: &mut WriteBatch, series: &str) {
    let labels = labels(series);
    batch.close(labels.as_bytes(), labels.placement_hash("t"), None);
}

fn push(rig: &Rig, batch: &WriteBatch) -> Vec<Verdict> {
    let rows: Vec<u32> = (0..batch.series().len() as u32).collect();
    let mut verdicts = vec![Verdict::Unavailable; batch.verdicts()];
    let outcome = rig.tsdb.append(&tenant("t"), batch, &rows, rig.now(), &mut verdicts).unwrap();
    rig.tsdb.wait_durable_blocking(outcome.log_position, std::time::Duration::from_secs(20)).unwrap();
    verdicts
}

type Read = BTreeMap<String, BTreeMap<i64, Any>>;

fn read(rig: &Rig) -> Read {
    let Some(view) = rig.tsdb.tenant(&tenant("t")) else { return Read::new() };
    let set = view.select(&SelectRequest::new(TimeRange::ALL, vec![]), &Context::background()).unwrap();
    let (entries, _) = collect(set).unwrap();
    let mut out = Read::new();
    for entry in entries {
        let (mut floats, mut natives) = (Columns::default(), HistogramColumns::default());
        decode_mixed(&entry.chunks, TimeRange::ALL, &mut floats, &mut natives).unwrap();
        let mut samples: BTreeMap<i64, Any> = BTreeMap::new();
        for (t, v) in floats.timestamps.iter().zip(&floats.values) {
            samples.insert(*t, Any::Float(*v));
        }
        for (t, h) in natives.timestamps.iter().zip(natives.histograms) {
            assert!(samples.insert(*t, Any::Native(Native::Float(h))).is_none(), "{t} is there twice");
        }
        out.insert(entry.labels.metric_name().to_owned(), samples);
    }
    out.retain(|_, samples| !samples.is_empty());
    out
}

/// Whether what is read is what was sent; a reader knows float counts alone.
fn expect(got: &Read, wanted: &Read) {
    let names = |r: &Read| r.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(got), names(wanted));
    for (series, wanted) in wanted {
        let got = &got[series];
        assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{series}");
        for (t, wanted) in wanted {
            let as_read = match wanted.clone() {
                Any::Native(h) => Any::Native(Native::Float(h.into_float())),
                float => float,
            };
            assert!(got[t].is_same(&as_read), "{series} at {t}: {:?}, but {wanted:?} was sent", got[t]);
        }
    }
}

fn any_sample() -> impl Strategy<Value = Any> {
    let counts = (-2..2i32, proptest::collection::vec(0..4i64, 0..4));
    (0..12u8, counts).prop_map(|(kind, (first, counts))| {
        let h = whole(first, &counts);
        let change = |change: &dyn Fn(&mut Histogram)| match h.clone() {
            Native::Whole(mut h) => {
                change(&mut h);
                Native::Whole(h)
            }
            other => other,
        };
        match kind {
            0 => Any::Float(1.0),
            1 => Any::Float(2.0),
            2 => Any::Float(stale_nan()),
            3 => Any::Native(h.stale()),
            4 => Any::Native(Native::Float(h.to_float())),
            5 => Any::Native(Native::Float(h.to_float()).stale()),
            6 => Any::Native(change(&|h| h.hint = ResetHint::Gauge)),
            7 => Any::Native(change(&|h| h.schema = 2)),
            8 => {
                let mut custom = whole(0, &counts);
                if let Native::Whole(h) = &mut custom {
                    (h.schema, h.custom_values) = (CUSTOM_BUCKETS, [0.5, 1.0, 2.0, 9.0].into());
                }
                Any::Native(custom)
            }
            _ => Any::Native(h),
        }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, Vec<(i64, Any)>),
    /// The same samples as this many steps before, again.
    Again(usize),
    Cut(bool),
    Kill,
    /// What a series has from here to there.
    Delete(u8, i64, i64),
}

fn step() -> impl Strategy<Value = Step> {
    // Two hours around an edge, in steps of ten seconds, so that times meet.
    let samples =
        proptest::collection::vec(((-200i64..200).prop_map(|n| NOON + n * 10_000), any_sample()), 1..12);
    let in_order = (any::<i16>(), proptest::collection::vec(any_sample(), 1..20)).prop_map(|(from, list)| {
        let from = NOON + i64::from(from % 200) * 10_000;
        list.into_iter().enumerate().map(|(n, sample)| (from + n as i64 * 10_000, sample)).collect()
    });
    prop_oneof![
        4 => (0..3u8, samples).prop_map(|(series, samples)| Step::Push(series, samples)),
        6 => (0..3u8, in_order).prop_map(|(series, samples)| Step::Push(series, samples)),
        2 => (1..4usize).prop_map(Step::Again),
        1 => any::<bool>().prop_map(Step::Cut),
        1 => Just(Step::Kill),
        1 => (0..3u8, -220i64..220, 0i64..120).prop_map(|(series, from, many)| {
            Step::Delete(series, NOON + from * 10_000, NOON + (from + many) * 10_000)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Every sample of every kind is taken once and read as it was sent, whatever order it came in, before and after
    /// cuts, restarts and deletions; the same again is a duplicate, another one a conflict.
    #[test]
    fn as_a_map_would_keep_them(steps in proptest::collection::vec(step(), 1..25)) {
        let mut rig = Rig::new();
        rig.clock.set(NOON + HOUR);
        let mut wanted = Read::new();
        let mut pushed: Vec<(u8, Vec<(i64, Any)>)> = Vec::new();
        for step in steps {
            let (series, samples) = match step {
                Step::Push(series, samples) => (series, samples),
                Step::Again(back) if back <= pushed.len() => pushed[pushed.len() - back].clone(),
                Step::Again(_) => continue,
                Step::Cut(force) => {
                    rig.tsdb.cut(rig.now(), force).unwrap();
                    continue;
                }
                Step::Kill => {
                    rig.kill();
                    continue;
                }
                Step::Delete(series, from, to) => {
                    let (name, range) = (format!("s{series}"), TimeRange::new(from, to));
                    let matching = [vec![Matcher::equal("__name__", &name)]];
                    rig.tsdb.delete_series(&tenant("t"), &matching, range).unwrap();
                    wanted.entry(name).or_default().retain(|t, _| !range.contains(*t));
                    wanted.retain(|_, samples| !samples.is_empty());
                    expect(&read(&rig), &wanted);
                    continue;
                }
            };
            let name = format!("s{series}");
            let batch = batch(&name, &samples);
            let verdicts = push(&rig, &batch);
            // Floats are judged before histograms.
            let is_float = |s: &&(i64, Any)| matches!(s.1, Any::Float(_));
            let judged = samples.iter().filter(is_float).chain(samples.iter().filter(|s| !is_float(s)));
            let kept = wanted.entry(name).or_default();
            for ((t, sample), verdict) in judged.zip(verdicts) {
                let right = match kept.get(t) {
                    Some(there) if there.is_same(sample) => Verdict::Duplicate,
                    Some(_) => Verdict::Refused(Refusal::Conflict),
                    None => Verdict::Stored,
                };
                prop_assert_eq!(verdict, right, "{} {:?}", t, sample);
                kept.entry(*t).or_insert_with(|| sample.clone());
            }
            pushed.push((series, samples));
            expect(&read(&rig), &wanted);
        }
        rig.kill();
        expect(&read(&rig), &wanted);
        rig.tsdb.cut(rig.now(), true).unwrap();
        expect(&read(&rig), &wanted);
        for block in rig.tsdb.local_blocks(&tenant("t")) {
            block::Block::open(&rig.world, &block.dir).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn chunks_of_a_series_end_where_its_kind_changes() {
    let rig = Rig::new();
    let mut samples: Vec<(i64, Any)> = (0..5).map(|n| (NOON + n, Any::Float(n as f64))).collect();
    let push_all = |list: &[(i64, Any)]| {
        for sample in list {
            assert_eq!(push(&rig, &batch("m", std::slice::from_ref(sample))), [Verdict::Stored]);
        }
    };
    samples.extend((5..9).map(|n| (NOON + n, Any::Native(whole(0, &[n])))));
    // A marker that is sent as a float belongs to the histograms that it ends.
    samples.push((NOON + 9, Any::Float(stale_nan())));
    samples.extend((10..12).map(|n| (NOON + n, Any::Float(n as f64))));
    push_all(&samples);
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let set = view.select(&SelectRequest::new(TimeRange::ALL, vec![]), &Context::background()).unwrap();
    let (entries, _) = collect(set).unwrap();
    let shape: Vec<_> =
        entries[0].chunks.iter().map(|c| (c.encoding, c.start() - NOON, c.end() - NOON)).collect();
    use chunk::Encoding::{Histogram, Xor};
    assert_eq!(shape, [(Xor, 0, 4), (Histogram, 5, 9), (Xor, 10, 11)]);
}

#[test]
fn a_histogram_that_no_record_holds_is_refused_alone() {
    let rig = Rig::new();
    let counts: Vec<i64> = (0..40_000).map(|n| n % 7).collect();
    let samples = [(NOON, Any::Native(whole(0, &counts))), (NOON + 1, Any::Native(whole(0, &[1])))];
    assert_eq!(
        push(&rig, &batch("m", &samples)),
        [Verdict::Refused(Refusal::InvalidHistogram), Verdict::Stored]
    );
}

fn exemplars_of(rig: &Rig, selectors: &[Vec<Matcher>], range: TimeRange) -> Vec<(String, Vec<i64>)> {
    let view = rig.tsdb.tenant(&tenant("t")).unwrap();
    let found = view.exemplars(selectors, range, &Context::background()).unwrap();
    let times = |s: &storage::SeriesExemplars| s.exemplars.iter().map(|e| e.timestamp - NOON).collect();
    found.iter().map(|s| (s.labels.metric_name().to_owned(), times(s))).collect()
}

#[test]
fn exemplars_are_kept_with_their_series_and_through_restarts() {
    let mut rig = Rig::new();
    let trace = |n: i64| Labels::from_pairs([("trace_id", n.to_string().as_str())]).unwrap();
    let with = |series: &str, at: &[i64], samples: bool| {
        let mut batch = WriteBatch::default();
        for n in at {
            if samples {
                batch.open().push(Sample { timestamp: NOON + n, value: 1.0 });
            }
            batch.push_exemplar(NOON + n, 0.5, trace(*n).as_bytes());
        }
        close(&mut batch, series);
        batch
    };
    // Without its series there is none.
    assert_eq!(push(&rig, &with("a", &[1], false)), [Verdict::Refused(Refusal::InvalidExemplar)]);
    assert_eq!(push(&rig, &with("a", &[1, 5], true)), [Verdict::Stored; 4]);
    assert_eq!(push(&rig, &with("b", &[3], true)), [Verdict::Stored; 2]);
    assert_eq!(push(&rig, &with("a", &[3], false)), [Verdict::Stored]);
    assert_eq!(push(&rig, &with("a", &[5], true)), [Verdict::Duplicate; 2]);
    let all = [("a".to_owned(), vec![1, 3, 5]), ("b".to_owned(), vec![3])];
    let check = |rig: &Rig| {
        assert_eq!(exemplars_of(rig, &[vec![]], TimeRange::ALL), all);
        let only = |name: &str| vec![Matcher::equal("__name__", name)];
        let range = TimeRange::new(NOON + 2, NOON + 3);
        assert_eq!(exemplars_of(rig, &[only("b"), only("c")], range), all[1..]);
        assert_eq!(exemplars_of(rig, &[only("a")], range), [("a".to_owned(), vec![3])]);
        assert_eq!(exemplars_of(rig, &[only("a"), only("b")], TimeRange::ALL), all);
    };
    check(&rig);
    rig.kill();
    check(&rig);
    // The log lets go of the segments that they came in, and they stay.
    rig.clock.set(NOON + 5 * HOUR);
    for n in 0..3000 {
        rig.push("t", "filler", &[(rig.now() + n, 1.0)]);
    }
    rig.tsdb.cut(rig.now(), true).unwrap();
    check(&rig);
    rig.kill();
    check(&rig);
    assert_eq!(push(&rig, &with("a", &[5], false)), [Verdict::Duplicate]);
}

#[test]
fn a_start_timestamp_becomes_a_zero_that_nobody_counts() {
    let settings = |on| Settings { created_timestamp_zero_ingestion: on, ..rig::settings() };
    let send = |rig: &Rig, at: i64, start: i64| {
        let mut batch = WriteBatch::default();
        batch.open().push(Sample { timestamp: NOON + at, value: 7.0 });
        batch.push_start(NOON + start);
        close(&mut batch, "c");
        let histogram = whole(1, &[2, 3]);
        batch.push_histogram(HistogramRow { timestamp: NOON + at, start: NOON + start, histogram });
        close(&mut batch, "h");
        push(rig, &batch)
    };
    let mut rig = Rig::with(settings(true));
    assert_eq!(send(&rig, 10, 5), [Verdict::Stored; 2]);
    // Known, older than the newest, not before its sample, too old: nothing happens.
    assert_eq!(send(&rig, 20, 5), [Verdict::Stored; 2]);
    assert_eq!(send(&rig, 30, 15), [Verdict::Stored; 2]);
    assert_eq!(send(&rig, 40, 40), [Verdict::Stored; 2]);
    // A new life.
    assert_eq!(send(&rig, 60, 50), [Verdict::Stored; 2]);
    assert_eq!(send(&rig, 60, 55), [Verdict::Duplicate; 2]);
    rig.clock.set(NOON + 3_000);
    let check = |rig: &Rig| {
        let got = read(rig);
        let floats: Vec<_> = got["c"].iter().map(|(t, s)| (t - NOON, matches!(s, Any::Float(0.0)))).collect();
        let zeros = [(5, true), (10, false), (20, false), (30, false), (40, false), (50, true), (60, false)];
        assert_eq!(floats, zeros);
        let is_zero = |s: &Any| matches!(s, Any::Native(Native::Float(h)) if h.count == 0.0);
        let natives: Vec<_> = got["h"].iter().map(|(t, s)| (t - NOON, is_zero(s))).collect();
        assert_eq!(natives, zeros);
    };
    check(&rig);
    rig.kill();
    check(&rig);
    rig.tsdb.cut(rig.now(), true).unwrap();
    check(&rig);
    let off = Rig::with(settings(false));
    assert_eq!(send(&off, 10, 5), [Verdict::Stored; 2]);
    assert!(read(&off).values().all(|samples| samples.len() == 1));
}

#[test]
fn a_zero_that_was_made_up_gives_way_to_a_sample_of_its_time_and_a_real_one_does_not() {
    let mut rig = Rig::new();
    rig.clock.set(NOON + 1000);
    let send = |rig: &Rig, at: i64, start: i64, value: f64, bucket: i64| {
        let mut batch = WriteBatch::default();
        batch.open().push(Sample { timestamp: NOON + at, value });
        batch.push_start(if start == 0 { 0 } else { NOON + start });
        close(&mut batch, "c");
        let start = if start == 0 { 0 } else { NOON + start };
        let histogram = whole(1, &[bucket]);
        batch.push_histogram(HistogramRow { timestamp: NOON + at, start, histogram });
        close(&mut batch, "h");
        push(rig, &batch)
    };
    let conflict = Verdict::Refused(storage::Refusal::Conflict);
    assert_eq!(send(&rig, 10, 5, 7.0, 7), [Verdict::Stored; 2]);
    assert_eq!(send(&rig, 20, 5, 8.0, 8), [Verdict::Stored; 2]);
    // A restart does not make it a sample that somebody sent.
    rig.kill();
    assert_eq!(send(&rig, 5, 0, 3.0, 3), [Verdict::Stored; 2]);
    assert_eq!(send(&rig, 5, 0, 3.0, 3), [Verdict::Duplicate; 2]);
    assert_eq!(send(&rig, 5, 0, 4.0, 4), [conflict; 2]);
    let check = |rig: &Rig| {
        let got = read(rig);
        let floats: Vec<_> = got["c"]
            .iter()
            .map(|(t, s)| (t - NOON, if let Any::Float(value) = s { *value } else { f64::NAN }))
            .collect();
        assert_eq!(floats, [(5, 3.0), (10, 7.0), (20, 8.0)]);
        let natives = got["h"].iter().map(|(t, s)| match s {
            Any::Native(Native::Float(h)) => (t - NOON, h.count),
            _ => (0, 0.0),
        });
        assert_eq!(natives.collect::<Vec<_>>(), [(5, 3.0), (10, 7.0), (20, 8.0)]);
    };
    check(&rig);
    rig.kill();
    check(&rig);
    assert_eq!(send(&rig, 5, 0, 3.0, 3), [Verdict::Duplicate; 2]);
    assert_eq!(send(&rig, 5, 0, 4.0, 4), [conflict; 2]);
    rig.tsdb.cut(rig.now(), true).unwrap();
    check(&rig);
    // A zero that somebody sent was acknowledged.
    let floats = |samples: [(i64, f64); 2]| {
        let samples = samples.map(|(t, value)| (NOON + t, Any::Float(value)));
        push(&rig, &batch("z", &samples))
    };
    assert_eq!(floats([(1, 0.0), (2, 1.0)]), [Verdict::Stored; 2]);
    assert_eq!(floats([(1, 5.0), (2, 1.0)]), [conflict, Verdict::Duplicate]);
}

/// A start beyond what is remembered of a series could be as old as samples that were forgotten with it, and would make a
/// window of its own for every age of a process.
#[test]
fn a_start_of_long_ago_makes_no_zero() {
    let rig = Rig::new();
    rig.clock.set(NOON);
    let window = rig.settings.out_of_order_window;
    let send = |name: &str, start: i64| {
        let mut batch = WriteBatch::default();
        batch.open().push(Sample { timestamp: NOON, value: 7.0 });
        batch.push_start(start);
        close(&mut batch, name);
        let histogram = whole(1, &[2, 3]);
        batch.push_histogram(HistogramRow { timestamp: NOON, start, histogram });
        close(&mut batch, &format!("{name}_native"));
        push(&rig, &batch)
    };
    assert_eq!(send("long_ago", NOON - window - 3_600_001), [Verdict::Stored; 2]);
    assert_eq!(send("lately", NOON - window - 3_600_000), [Verdict::Stored; 2]);
    let many: Vec<(String, usize)> = read(&rig).into_iter().map(|(name, all)| (name, all.len())).collect();
    let wanted = [("lately", 2), ("lately_native", 2), ("long_ago", 1), ("long_ago_native", 1)];
    assert_eq!(many, wanted.map(|(name, n)| (name.to_owned(), n)));
}

/// A sealed chunk's length has 24 bits: what came late must not be put together beyond that.
#[test]
fn late_histograms_of_many_buckets_are_kept_whole() {
    let rig = Rig::with(Settings { segment_bytes: 8 << 20, ..rig::settings() });
    rig.clock.set(NOON + HOUR);
    // Counts that take more than five bytes each: 120 of these are 18 MB.
    let large = |n: i64| {
        let mut state = n as u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 16) as i64
        };
        let counts: Vec<i64> = (0..30_000).map(|_| next()).collect();
        match whole(0, &counts) {
            Native::Whole(h) => Native::Whole(Histogram { hint: ResetHint::Gauge, ..h }),
            float => float,
        }
    };
    assert_eq!(push(&rig, &batch("h", &[(NOON + HOUR, Any::Native(whole(0, &[1])))])), [Verdict::Stored]);
    for n in 0..121 {
        assert_eq!(push(&rig, &batch("h", &[(NOON + n, Any::Native(large(n)))])), [Verdict::Stored]);
    }
    let check = |got: Read| {
        let natives = &got["h"];
        assert_eq!(natives.len(), 122);
        let Native::Whole(sent) = large(60) else { unreachable!() };
        assert!(natives[&(NOON + 60)].is_same(&Any::Native(Native::Float(sent.to_float()))));
    };
    check(read(&rig));
    rig.tsdb.cut(rig.now(), true).unwrap();
    check(read(&rig));
}
