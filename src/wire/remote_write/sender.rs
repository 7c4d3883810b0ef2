//! Who of an HA pair sent a request, as all of its series say, and how much of what time it holds; nothing is decoded.
//!
//! # Cost
//! One look at the name of each label of a series until both are found, and at the time of each sample; none after the
//! first series that says something else.

use model::Timestamp;

use super::decode::{LABEL_KEY, label, usual_label, usual_sample};
use crate::WireError;
use crate::walk::{Walk, Wire};

/// Number of a histogram's time, in both versions.
const HISTOGRAM_TIME: u32 = 15;

/// The names of the labels that say it.
#[derive(Clone, Copy, Debug)]
pub struct PairLabels<'a> {
    pub cluster: &'a str,
    pub replica: &'a str,
}

/// What a request holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent<'a> {
    pub cluster: &'a str,
    pub replica: &'a str,
    pub series: u64,
    /// Floats.
    pub samples: u64,
    pub histograms: u64,
    pub exemplars: u64,
    /// Times of samples and histograms, in milliseconds; `oldest > newest` where there are none.
    pub oldest: Timestamp,
    pub newest: Timestamp,
}

/// Who sent a `prometheus.WriteRequest`; none unless every series has both labels, with one value each. What cannot be
/// walked is left to who decodes it.
pub fn sent_v1<'a>(plain: &'a [u8], labels: PairLabels<'_>) -> Option<Sent<'a>> {
    let mut seen = Seen::default();
    walk_v1(plain, labels, &mut seen).ok()?;
    seen.sent()
}

/// Who sent an `io.prometheus.write.v2.Request`.
pub fn sent_v2<'a>(plain: &'a [u8], labels: PairLabels<'_>) -> Option<Sent<'a>> {
    let mut seen = Seen::default();
    walk_v2(plain, labels, &mut seen).ok()?;
    seen.sent()
}

#[derive(Default)]
struct Seen<'a> {
    pair: Option<(&'a [u8], &'a [u8])>,
    /// Some series says something else.
    mixed: bool,
    series: u64,
    samples: u64,
    histograms: u64,
    exemplars: u64,
    range: Option<(Timestamp, Timestamp)>,
}

impl<'a> Seen<'a> {
    /// Takes what a series says; false where the request is of nobody in particular.
    fn says(&mut self, cluster: Option<&'a [u8]>, replica: Option<&'a [u8]>) -> bool {
        self.series += 1;
        let said = cluster.zip(replica).filter(|(c, r)| !c.is_empty() && !r.is_empty());
        self.mixed |= said.is_none() || self.pair.is_some_and(|pair| Some(pair) != said);
        self.pair = said;
        !self.mixed
    }

    #[inline]
    fn at(&mut self, t: Timestamp) {
        let (oldest, newest) = self.range.unwrap_or((t, t));
        self.range = Some((oldest.min(t), newest.max(t)));
    }

    fn histogram(&mut self, walk: &mut Walk<'a>, wire: Wire) -> Result<(), WireError> {
        walk.expect(wire, Wire::Bytes, "a histogram")?;
        self.histograms += 1;
        let mut inner = walk.enter()?;
        let mut time = 0;
        while !inner.is_done() {
            match inner.key()? {
                (HISTOGRAM_TIME, Wire::Varint) => time = inner.varint()? as i64,
                (field, wire) => inner.skip(field, wire)?,
            }
        }
        self.at(time);
        Ok(())
    }

    fn sample(&mut self, walk: &mut Walk<'a>, wire: Wire) -> Result<(), WireError> {
        walk.expect(wire, Wire::Bytes, "a sample")?;
        let sample = super::decode::sample(walk.enter()?)?;
        self.samples += 1;
        self.at(sample.timestamp);
        Ok(())
    }

    fn sent(self) -> Option<Sent<'a>> {
        let (cluster, replica) = self.pair.filter(|_| !self.mixed)?;
        let (oldest, newest) = self.range.unwrap_or((Timestamp::MAX, Timestamp::MIN));
        Some(Sent {
            cluster: std::str::from_utf8(cluster).ok()?,
            replica: std::str::from_utf8(replica).ok()?,
            series: self.series,
            samples: self.samples,
            histograms: self.histograms,
            exemplars: self.exemplars,
            oldest,
            newest,
        })
    }
}

fn walk_v1<'a>(plain: &'a [u8], names: PairLabels<'_>, seen: &mut Seen<'a>) -> Result<(), WireError> {
    let mut walk = Walk::new(plain);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        if field != 1 {
            walk.skip(field, wire)?;
            continue;
        }
        walk.expect(wire, Wire::Bytes, "a time series")?;
        let mut series = walk.enter()?;
        let (mut cluster, mut replica) = (None, None);
        while !series.is_done() {
            if let Some(sample) = usual_sample(&mut series) {
                seen.samples += 1;
                seen.at(sample.timestamp);
                continue;
            }
            if cluster.is_some() && replica.is_some() && plain.get(series.at) == Some(&LABEL_KEY) {
                series.at += 1;
                series.enter()?;
                continue;
            }
            let pair = match usual_label(&series) {
                Some((pair, next)) => {
                    series.at = next;
                    pair
                }
                None => match series.key()? {
                    (1, Wire::Bytes) => label(series.enter()?)?,
                    (2, wire) => {
                        seen.sample(&mut series, wire)?;
                        continue;
                    }
                    (3, wire) => {
                        series.expect(wire, Wire::Bytes, "an exemplar")?;
                        series.enter()?;
                        seen.exemplars += 1;
                        continue;
                    }
                    (4, wire) => {
                        seen.histogram(&mut series, wire)?;
                        continue;
                    }
                    (field, wire) => {
                        series.skip(field, wire)?;
                        continue;
                    }
                },
            };
            let text = |(start, end): (u32, u32)| plain.get(start as usize..end as usize);
            match text(pair.name) {
                Some(name) if name == names.cluster.as_bytes() => cluster = text(pair.value),
                Some(name) if name == names.replica.as_bytes() => replica = text(pair.value),
                _ => {}
            }
        }
        if !seen.says(cluster, replica) {
            return Ok(());
        }
    }
    Ok(())
}

fn walk_v2<'a>(plain: &'a [u8], names: PairLabels<'_>, seen: &mut Seen<'a>) -> Result<(), WireError> {
    let mut symbols: Vec<&'a [u8]> = Vec::new();
    let mut walk = Walk::new(plain);
    while !walk.is_done() {
        match walk.key()? {
            (4, Wire::Bytes) => {
                let text = walk.enter()?;
                symbols.push(plain.get(text.at..text.end).unwrap_or_default());
            }
            (field, wire) => walk.skip(field, wire)?,
        }
    }
    let symbol = |at: u64| usize::try_from(at).ok().and_then(|at| symbols.get(at)).copied();
    let mut walk = Walk::new(plain);
    while !walk.is_done() {
        let (field, wire) = walk.key()?;
        if field != 5 {
            walk.skip(field, wire)?;
            continue;
        }
        walk.expect(wire, Wire::Bytes, "a time series")?;
        let mut series = walk.enter()?;
        // A pair of references may be torn: the name in one field, its value in the next.
        let (mut cluster, mut replica, mut name) = (None, None, None);
        let mut reference = |at: u64| match name.take() {
            None => name = Some(symbol(at).unwrap_or_default()),
            Some(name) if name == names.cluster.as_bytes() => cluster = symbol(at),
            Some(name) if name == names.replica.as_bytes() => replica = symbol(at),
            Some(_) => {}
        };
        while !series.is_done() {
            match series.key()? {
                (1, Wire::Bytes) => {
                    let mut packed = series.enter()?;
                    while !packed.is_done() {
                        reference(packed.varint()?);
                    }
                }
                (1, Wire::Varint) => reference(series.varint()?),
                (2, wire) => seen.sample(&mut series, wire)?,
                (3, wire) => seen.histogram(&mut series, wire)?,
                (4, wire) => {
                    series.expect(wire, Wire::Bytes, "an exemplar")?;
                    series.enter()?;
                    seen.exemplars += 1;
                }
                (field, wire) => series.skip(field, wire)?,
            }
        }
        if !seen.says(cluster, replica) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{Native, Sample};
    use proptest::prelude::*;

    use super::super::{RequestV2, encode_v1};
    use super::*;

    const NAMES: PairLabels<'static> = PairLabels { cluster: "cluster", replica: "__replica__" };

    type One = (Vec<(String, String)>, Vec<i64>);

    fn v1(all: &[One]) -> Vec<u8> {
        let mut body = Vec::new();
        let series = all.iter().map(|(labels, times)| {
            let samples = times.iter().map(|t| Sample { timestamp: *t, value: 1.0 });
            (labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), samples)
        });
        encode_v1(series, &mut body);
        body
    }

    fn v2(all: &[One]) -> Vec<u8> {
        let mut body = RequestV2::default();
        for (labels, times) in all {
            labels.iter().for_each(|(name, value)| body.label(name, value));
            times.iter().for_each(|t| body.sample(Sample { timestamp: *t, value: 1.0 }, 0));
            body.end();
        }
        body.finish()
    }

    fn series(pairs: &[(&str, &str)], times: &[i64]) -> One {
        (pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(), times.to_vec())
    }

    #[test]
    fn all_series_say_it_or_nobody_does() {
        let a = |name| {
            series(
                &[("__name__", name), ("__replica__", "a"), ("cluster", "c"), ("x", "__replica__")],
                &[5, 9],
            )
        };
        let told = |all: &[One]| {
            let (one, two) = (v1(all), v2(all));
            let (one, two) = (sent_v1(&one, NAMES), sent_v2(&two, NAMES));
            assert_eq!(one, two);
            one.map(|sent| {
                (sent.cluster.to_owned(), sent.replica.to_owned(), sent.samples, sent.oldest, sent.newest)
            })
        };
        let (c, r) = ("c".to_owned(), "a".to_owned());
        assert_eq!(told(&[a("up"), a("down")]), Some((c, r, 4, 5, 9)));
        for other in [
            series(&[("__name__", "up")], &[5]),
            series(&[("__name__", "up"), ("cluster", "c")], &[5]),
            series(&[("__name__", "up"), ("__replica__", "a")], &[5]),
            series(&[("__name__", "up"), ("__replica__", "b"), ("cluster", "c")], &[5]),
            series(&[("__name__", "up"), ("__replica__", "a"), ("cluster", "d")], &[5]),
            series(&[("__name__", "up"), ("__replica__", ""), ("cluster", "c")], &[5]),
        ] {
            assert_eq!(told(&[a("up"), other.clone()]), None, "{other:?}");
            assert_eq!(told(&[other, a("up")]), None);
        }
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[a("up"), series(&[], &[])]), None);
    }

    #[test]
    fn histograms_and_exemplars_are_counted_and_timed() {
        let mut body = RequestV2::default();
        body.label("cluster", "c");
        body.label("__replica__", "r");
        body.histogram(&Native::Whole(model::Histogram { sum: 2.0, ..Default::default() }), 70, 1);
        body.exemplar([("trace", "x")], 0.5, 6);
        body.end();
        let body = body.finish();
        let sent = sent_v2(&body, NAMES).unwrap();
        assert_eq!((sent.series, sent.samples, sent.histograms, sent.exemplars), (1, 0, 1, 1));
        assert_eq!((sent.oldest, sent.newest), (70, 70));
    }

    proptest! {
        #[test]
        fn as_the_decoders_see_it(
            all in proptest::collection::vec((
                proptest::collection::btree_map("cluster|__replica__|a|__name__", "[ab]", 0..4),
                proptest::collection::vec(-50i64..50, 0..3),
            ), 0..4),
        ) {
            let all: Vec<One> = all.into_iter().map(|(labels, times)| (labels.into_iter().collect(), times)).collect();
            let of = |labels: &[(String, String)], name: &str| {
                labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
            };
            let mut pairs: Vec<_> =
                all.iter().map(|(l, _)| of(l, "cluster").zip(of(l, "__replica__"))).collect();
            pairs.dedup();
            let want = if pairs.len() == 1 { pairs.remove(0) } else { None };
            let (one, two) = (v1(&all), v2(&all));
            let got = sent_v1(&one, NAMES);
            prop_assert_eq!(&got, &sent_v2(&two, NAMES));
            prop_assert_eq!(got.as_ref().map(|s| (s.cluster.to_owned(), s.replica.to_owned())), want);
            if let Some(sent) = got {
                let times = || all.iter().flat_map(|(_, times)| times);
                prop_assert_eq!(sent.samples, times().count() as u64);
                prop_assert_eq!((sent.series, sent.exemplars, sent.histograms), (all.len() as u64, 0, 0));
                prop_assert_eq!(sent.newest, times().max().copied().unwrap_or(i64::MIN));
                prop_assert_eq!(sent.oldest, times().min().copied().unwrap_or(i64::MAX));
            }
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (sent_v1(&bytes, NAMES), sent_v2(&bytes, NAMES));
        }
    }
}
