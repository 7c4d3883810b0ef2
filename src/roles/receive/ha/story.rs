//! Two replicas that scrape, die, fall behind and come back, by clocks of their own, against a door's [`Ha`] and a real
//! engine: what is stored is held against what both scraped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use model::{Labels, Sample, TenantId, TimeRange};
use proptest::prelude::*;
use runtime::{Clock, World};
use storage::{Append, Columns, Context, Select, SelectRequest, Verdict, WriteBatch, collect, decode_series};
use tsdb::Tsdb;
use wire::remote_write::{Packing, Sent};

use super::tracker::{Ha, Heard, Play};
use crate::admit::Version;
use crate::limits::Profile;
use crate::settings::HaPairs;

/// One scrape to the next, in milliseconds.
const STEP: i64 = 15_000;
/// The whole story.
const LENGTH: i64 = 30 * 60_000;
const BEGIN: i64 = 1_700_000_000_000;
const SERIES: usize = 2;

struct Hands {
    begun: Instant,
    ms: AtomicI64,
}

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        BEGIN + self.ms.load(Relaxed)
    }

    fn monotonic(&self) -> Instant {
        self.begun + Duration::from_millis(self.ms.load(Relaxed) as u64)
    }
}

/// Why a replica's samples do not come.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It does not scrape.
    Dead,
    /// It cannot send; what it scraped comes late.
    CutOff,
}

#[derive(Clone, Debug)]
struct Plan {
    /// When each scrapes within a step, and how far its clock is off.
    offsets: [i64; 2],
    skew: [i64; 2],
    /// How late each series of each comes.
    lags: [[i64; SERIES]; 2],
    /// Which is in trouble from when on, for how long; one at a time.
    troubles: Vec<(usize, Trouble, i64, i64)>,
    /// Times at which the counter begins anew.
    resets: Vec<i64>,
    /// Which of what waits to be played comes next, and when.
    chances: Vec<u8>,
}

fn plan() -> impl Strategy<Value = Plan> {
    // Clocks that are off by more than half a scrape cannot be told from scrapes.
    let skew = -(STEP / 5)..STEP / 5;
    let trouble = (0usize..2, any::<bool>(), 5_000i64..240_000, 60_000i64..200_000);
    (
        [0..STEP, 0..STEP],
        [skew.clone(), skew],
        proptest::collection::vec(0i64..4_000, 2 * SERIES),
        proptest::collection::vec(trouble, 1..8),
        proptest::collection::vec(0..LENGTH, 0..6),
        proptest::collection::vec(any::<u8>(), 64),
    )
        .prop_map(|(offsets, skew, lags, given, resets, chances)| {
            let (mut troubles, mut at) = (Vec::new(), 60_000);
            for (who, dead, length, pause) in given {
                let what = if dead { Trouble::Dead } else { Trouble::CutOff };
                // What is missing of a shorter absence is the replica's own loss: nobody has taken its place.
                let length = if dead { length.max(40_000) } else { length };
                troubles.push((who, what, at, at + length));
                at += length + pause;
            }
            let lags = [0, 1].map(|who| std::array::from_fn(|series| lags[who * SERIES + series]));
            Plan { offsets, skew, lags, troubles, resets, chances }
        })
}

/// What one replica scraped: when it is sent, the time that it says, the value.
#[derive(Clone, Copy, Debug)]
struct Scraped {
    who: usize,
    series: usize,
    sent: i64,
    truly: i64,
    sample: Sample,
}

impl Plan {
    fn counter(&self, truly: i64) -> f64 {
        let since = self.resets.iter().filter(|reset| **reset <= truly).max().copied().unwrap_or(-1_000);
        (truly - since) as f64
    }

    fn scraped(&self) -> Vec<Scraped> {
        let mut all = Vec::new();
        for who in 0..2 {
            for step in 0..LENGTH / STEP {
                let truly = step * STEP + self.offsets[who];
                let of = |(at, _, from, to): &&(usize, Trouble, i64, i64)| {
                    *at == who && (*from..*to).contains(&truly)
                };
                let trouble = self.troubles.iter().find(of);
                let mut held_up = truly;
                match trouble {
                    Some((_, Trouble::Dead, ..)) => continue,
                    Some((_, Trouble::CutOff, _, to)) => held_up = *to,
                    None => {}
                }
                for series in 0..SERIES {
                    let sample =
                        Sample { timestamp: BEGIN + truly + self.skew[who], value: self.counter(truly) };
                    let sent = held_up + self.lags[who][series];
                    all.push(Scraped { who, series, sent, truly, sample });
                }
            }
        }
        all.sort_by_key(|scraped| (scraped.sent, scraped.truly));
        all
    }
}

const NAMES: [&str; 2] = ["a", "b"];

struct Story {
    ha: Ha,
    tsdb: Arc<Tsdb>,
    tenant: TenantId,
    plan: Plan,
    scraped: Vec<Scraped>,
    waiting: Vec<Arc<Play>>,
    chance: usize,
    /// Who was listened to, from when on.
    reigns: Vec<(i64, String)>,
}

impl Story {
    /// How long the replica of a reign was listened to; after the end nobody scrapes, whoever takes over then.
    fn until(&self, reign: usize) -> i64 {
        self.reigns.get(reign + 1).map_or(LENGTH, |(until, _)| LENGTH.min(*until))
    }

    fn store(&self, at: usize, spliced: bool, now: i64) {
        self.keep(&self.tenant, &self.scraped[at], spliced, now);
    }

    fn keep(&self, tenant: &TenantId, scraped: &Scraped, spliced: bool, now: i64) {
        let name = format!("requests_{}_total", scraped.series);
        let labels = Labels::from_pairs([("__name__", name.as_str())]).unwrap();
        let mut batch = WriteBatch::default();
        batch.push(labels.as_bytes(), labels.placement_hash(tenant.as_str()), [scraped.sample]);
        batch.splice(spliced);
        let mut verdicts = [Verdict::Unavailable];
        self.tsdb.append(tenant, &batch, &[0], BEGIN + now, &mut verdicts).unwrap();
        assert!(verdicts[0].is_success(), "{verdicts:?}");
    }

    fn draw(&mut self) -> u8 {
        self.chance += 1;
        self.plan.chances[self.chance % self.plan.chances.len()]
    }

    fn play(&mut self, now: i64, all: bool) {
        self.waiting.extend(std::iter::from_fn(|| self.ha.next_play()));
        while !self.waiting.is_empty() && (all || self.draw().is_multiple_of(2)) {
            let which = usize::from(self.draw()) % self.waiting.len();
            let play = self.waiting.remove(which);
            let at = play.held.body.body[..].try_into().map(u64::from_le_bytes).unwrap();
            self.store(at as usize, true, now);
            self.ha.played(&play);
        }
    }

    fn note(&mut self, now: i64) {
        let mut elected = None;
        self.ha.each(|_, _, pair| elected = pair.elected().map(|elected| elected.replica.clone()));
        if let Some(replica) = elected
            && self.reigns.last().is_none_or(|(_, last)| *last != replica)
        {
            self.reigns.push((now, replica));
        }
    }

    fn stored(&self, series: usize) -> Vec<Sample> {
        let view = self.tsdb.tenant(&self.tenant).unwrap();
        let name = format!("requests_{series}_total");
        let matcher = model::Matcher::equal("__name__", &name);
        let set =
            view.select(&SelectRequest::new(TimeRange::ALL, vec![matcher]), &Context::background()).unwrap();
        let (entries, _) = collect(set).unwrap();
        let mut columns = Columns::default();
        decode_series(&entries[0].chunks, TimeRange::ALL, &mut columns).unwrap();
        let all = columns.timestamps.iter().zip(&columns.values);
        all.map(|(t, v)| Sample { timestamp: *t, value: *v }).collect()
    }
}

fn tell(plan: Plan) -> Story {
    let hands = Arc::new(Hands { begun: World::real().clock.monotonic(), ms: AtomicI64::new(0) });
    let disk = Arc::new(testkit::MemDisk::new());
    let (world, _) = testkit::world(disk, BEGIN, 1);
    let world = World { clock: hands.clone(), ..world };
    let settings =
        tsdb::Settings { shards: 1, segment_bytes: 64 << 10, dir: "/data".into(), ..Default::default() };
    let tsdb = Tsdb::open(world.clone(), settings).unwrap();
    let ha = Ha::new(&HaPairs { enabled: true, ..HaPairs::default() }, &world, None, None);
    let (tenant, scraped) = (TenantId::new("t").unwrap(), plan.scraped());
    let mut story =
        Story { ha, tsdb, tenant, plan, scraped, waiting: Vec::new(), chance: 0, reigns: Vec::new() };
    let profile = Profile::default();
    let mut second = 0;
    for at in 0..story.scraped.len() {
        let Scraped { who, sent: now, sample, .. } = story.scraped[at];
        while second <= now {
            hands.ms.store(second, Relaxed);
            story.ha.tidy();
            story.ha.wishes();
            story.note(second);
            second += 1_000;
        }
        hands.ms.store(now, Relaxed);
        let sent = Sent {
            cluster: "c",
            replica: NAMES[who],
            series: 1,
            samples: 1,
            histograms: 0,
            exemplars: 0,
            oldest: sample.timestamp,
            newest: sample.timestamp,
        };
        let mut body = (at as u64).to_le_bytes().to_vec();
        let heard = story.ha.hear(
            &story.tenant,
            &profile,
            &sent,
            (Version::V1, Packing::Snappy),
            &mut body,
            BEGIN + now,
        );
        match heard.unwrap() {
            Heard::Listen { spliced } => story.store(at, spliced, now),
            Heard::Held => {}
            Heard::Untracked => panic!("one pair is not too many"),
        }
        story.note(now);
        story.play(now, false);
    }
    story.play(LENGTH, true);
    story
}

/// What must hold of what is stored, whatever happened.
fn check(story: &Story) {
    for series in 0..SERIES {
        let stored = story.stored(series);
        let mut known = BTreeMap::new();
        for scraped in story.scraped.iter().filter(|scraped| scraped.series == series) {
            let all: &mut Vec<&Scraped> = known.entry(scraped.sample.timestamp).or_default();
            all.push(scraped);
        }
        let truly = |sample: &Sample| -> Vec<&Scraped> {
            let all = known.get(&sample.timestamp).cloned().unwrap_or_default();
            all.into_iter().filter(|one| one.sample.value == sample.value).collect()
        };
        for sample in &stored {
            assert!(!truly(sample).is_empty(), "nobody scraped {sample:?}");
        }
        for pair in stored.windows(2) {
            let apart = pair[1].timestamp - pair[0].timestamp;
            assert!(2 * apart > STEP, "a scrape twice: {pair:?}");
            assert!(2 * apart <= 3 * STEP, "more than one scrape is missing: {pair:?}");
            if pair[1].value < pair[0].value {
                let between = |reset: &i64| {
                    truly(&pair[0]).iter().any(|one| one.truly < *reset)
                        && truly(&pair[1]).iter().any(|one| *reset <= one.truly)
                };
                assert!(story.plan.resets.iter().any(between), "a reset that was none: {pair:?}");
            }
        }
        let first = stored.first().unwrap().timestamp - BEGIN;
        let last = stored.last().unwrap().timestamp - BEGIN;
        assert!(first <= 2 * STEP && last >= LENGTH - 3 * STEP, "{first} {last}");
        // Away from where one took over, there is nothing but what the one that was listened to scraped.
        for (at, (from, replica)) in story.reigns.iter().enumerate() {
            let until = story.until(at);
            let range = BEGIN + from + 2 * STEP..BEGIN + until - 8 * STEP;
            let alone: Vec<i64> = story
                .scraped
                .iter()
                .filter(|one| one.series == series && NAMES[one.who] == replica)
                .map(|one| one.sample.timestamp)
                .filter(|t| range.contains(t))
                .collect();
            let got: Vec<i64> =
                stored.iter().map(|sample| sample.timestamp).filter(|t| range.contains(t)).collect();
            assert_eq!(got, alone, "while {replica} was listened to from {from} until {until}");
        }
    }
}

/// Scrapes of a window.
const WINDOW: i64 = 5;

/// `rate` and `increase` per step of what a tenant has of a series.
fn rates(story: &Story, tenant: &TenantId, series: usize) -> [BTreeMap<i64, f64>; 2] {
    let engine = promql::Engine::new(promql::EngineSettings::default(), World::real());
    ["rate", "increase"].map(|function| {
        let request = promql::RangeRequest {
            query: format!("{function}(requests_{series}_total[{}s])", WINDOW * STEP / 1000),
            start: BEGIN + (WINDOW + 2) * STEP,
            end: BEGIN + LENGTH - 3 * STEP,
            step: STEP,
            lookback_override: None,
            max_resolution: 0,
            details: promql::Details::default(),
        };
        let select: Arc<dyn Select> = story.tsdb.tenant(tenant).unwrap();
        let answer = engine.range(&request, select, &Context::background()).unwrap();
        let promql::Value::Matrix(all) = answer.value else { panic!("no matrix") };
        assert_eq!(all.len(), 1);
        all[0].points.iter().map(|point| (point.t, point.v)).collect()
    })
}

/// Through `rate` and `increase`: each step says what one replica alone says, or, where one took over in its window, what lies
/// between both, give or take a scrape.
fn check_rates(story: &Story) {
    // Each as if nothing ever happened to it.
    let whole = Plan { troubles: Vec::new(), ..story.plan.clone() };
    let alone = [0, 1].map(|who| {
        let tenant = TenantId::new(&format!("alone-{}", NAMES[who])).unwrap();
        for scraped in whole.scraped().into_iter().filter(|one| one.who == who && one.series == 0) {
            story.keep(&tenant, &scraped, false, LENGTH);
        }
        rates(story, &tenant, 0)
    });
    let apart = (story.plan.skew[0] - story.plan.skew[1]).abs();
    let told = rates(story, &story.tenant, 0);
    for (which, per_scrape) in [(0, STEP as f64 / (WINDOW * STEP) as f64 * 1000.0), (1, STEP as f64)] {
        assert!(!told[which].is_empty());
        for (t, got) in &told[which] {
            // Whoever was listened to all through the window, far enough from where that began and ended.
            let reign = story.reigns.iter().enumerate().find(|(at, (from, _))| {
                let until = story.until(*at);
                t - WINDOW * STEP >= BEGIN + from + 2 * STEP && *t < BEGIN + until - 8 * STEP
            });
            if let Some((_, (_, replica))) = reign {
                let who = usize::from(replica == NAMES[1]);
                assert_eq!(Some(got), alone[who][which].get(t), "{replica} alone, at {}", t - BEGIN);
                continue;
            }
            let around = || {
                let times = [t - STEP, *t, t + STEP];
                alone.iter().flat_map(move |one| times.map(|t| one[which].get(&t).copied())).flatten()
            };
            let (least, most) = (around().fold(f64::INFINITY, f64::min), around().fold(0.0, f64::max));
            // Clocks that differ make the seconds between two scrapes of different replicas longer or shorter.
            let slack = per_scrape * (1.0 + apart as f64 / STEP as f64);
            assert!(
                *got >= least - slack && *got <= most + slack,
                "at {}: {got}, not between {least} and {most}, give or take {slack}",
                t - BEGIN
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whoever_fails_what_is_stored_is_one_series_t23(plan in plan()) {
        let story = tell(plan);
        check(&story);
        check_rates(&story);
    }
}

#[test]
fn the_story_has_change_overs_and_pauses_without_one() {
    let trouble = |who, what, from, length| (who, what, from, from + length);
    let plan = Plan {
        offsets: [0, 7_000],
        skew: [2_000, -2_000],
        lags: [[100, 2_000], [50, 3_000]],
        troubles: vec![
            // Shorter than anybody notices.
            trouble(0, Trouble::CutOff, 100_000, 8_000),
            trouble(0, Trouble::Dead, 300_000, 120_000),
            trouble(1, Trouble::CutOff, 600_000, 120_000),
        ],
        resets: vec![350_000, 640_000],
        chances: vec![1, 7, 4, 2, 9, 3],
    };
    let story = tell(plan);
    check(&story);
    let reigns: Vec<&str> = story.reigns.iter().map(|(_, replica)| replica.as_str()).collect();
    assert_eq!(reigns, ["a", "b", "a"]);
    check_rates(&story);
    let (from, _) = story.reigns[1];
    assert!((310_000..335_000).contains(&from), "noticed at {from}");
    assert_eq!(story.ha.held().1, 0);
}
