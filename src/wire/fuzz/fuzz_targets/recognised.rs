//! Door bodies with series recognised by their label bytes: the same series, samples and errors as in full.
#![no_main]

use std::cell::RefCell;

use identity::{Identities, Met, Settings};
use libfuzzer_sys::fuzz_target;
use runtime::World;
use wire::remote_write::{DecodedV1, Limits, RequestWalk, canonical_labels, decode_v1};

type Rows = Vec<(Result<Vec<u8>, String>, Vec<(i64, u64)>, u32, u32)>;

thread_local! {
    /// Kept over inputs, as in life: what one body taught is used for the next.
    static IDENTITIES: RefCell<Identities> =
        RefCell::new(Identities::new(Settings { max_series: 5000, idle_minutes: 2 }, &*World::real().chance));
}

fn bits(samples: &[model::Sample]) -> Vec<(i64, u64)> {
    samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect()
}

fn in_full(body: &[u8], limits: &Limits) -> Result<Rows, String> {
    let mut out = DecodedV1::default();
    decode_v1(body, limits, &mut out).map_err(|e| e.message)?;
    let row = |series| {
        let mut labels = Vec::new();
        let read = out.canonical(series, body, &mut labels).map(|()| labels).map_err(|e| e.to_string());
        (read, bits(out.samples_of(series)), series.histograms, series.exemplars)
    };
    Ok(out.series().iter().map(row).collect())
}

fn recognised(body: &[u8], limits: &Limits, of: &Identities, now: i64) -> Result<Rows, String> {
    let (mut rows, mut met) = (Rows::new(), Vec::new());
    {
        let session = of.session("t", now);
        let (mut full, mut room, mut last) = (DecodedV1::default(), DecodedV1::default(), None);
        let mut walk = RequestWalk::new(body, limits, &mut full).map_err(|e| e.message)?;
        while let Some(at) = walk.next_series(&mut full).map_err(|e| e.message)? {
            let hinted = last.and_then(|last| session.expected(last)).and_then(|(id, len)| {
                let region = walk.predicted(at, len)?;
                Some((session.confirm(id, session.key(region))?, region))
            });
            let found = hinted.or_else(|| {
                let region = walk.labels(at)?;
                Some((session.find(session.key(region))?, region))
            });
            if let Some((known, region)) = found {
                last = Some(known.id);
                let mut samples = Vec::new();
                if walk.samples(at, region.len(), &mut samples).map_err(|e| e.message)? {
                    let mut labels = Vec::new();
                    let read = canonical_labels(region, limits, &mut room, &mut labels);
                    let read = read.map(|()| labels).map_err(|e| e.to_string());
                    rows.push((read, bits(&samples), 0, 0));
                    continue;
                }
            }
            let series = walk.read(at, &mut full).map_err(|e| e.message)?.cloned().unwrap();
            let mut labels = Vec::new();
            let read = full.canonical(&series, body, &mut labels).map(|()| labels).map_err(|e| e.to_string());
            let region = &body[series.raw_labels()];
            if read.is_ok() {
                met.push(Met { id: None, key: session.key(region), len: region.len() as u32, hash: 0 });
            }
            rows.push((read, bits(full.samples_of(&series)), series.histograms, series.exemplars));
        }
    }
    of.learn::<u64>("t", &mut met, &[], true, now);
    Ok(rows)
}

fuzz_target!(|body: &[u8]| {
    let limits = Limits { max_series: 50, max_labels: 6, ..Limits::default() };
    let want = in_full(body, &limits);
    IDENTITIES.with_borrow(|of| {
        let now = World::real().clock.now_ms();
        for _ in 0..3 {
            assert_eq!(recognised(body, &limits, of, now), want);
        }
        if of.stats().series > 4000 {
            of.sweep(now + 10 * 60_000);
        }
    });
});
