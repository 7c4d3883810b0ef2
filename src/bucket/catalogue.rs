//! Which of the blocks found are read: Thanos's rules as one pure function.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use block::{BlockId, Meta};
use model::TimeRange;

use crate::{DeletionMark, Error};

/// Why a block is read or not, under the names of Thanos's `blocks_meta_synced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Loaded,
    /// An upload or a deletion is under way, or was broken off.
    NoMeta,
    CorruptedMeta,
    /// The bucket did not answer for this block.
    Failed,
    TooFresh,
    TimeExcluded,
    /// All that it was made of is in another block.
    Duplicate,
    MarkedForDeletion,
}

impl State {
    pub const ALL: [State; 8] = [
        State::Loaded,
        State::NoMeta,
        State::CorruptedMeta,
        State::Failed,
        State::TooFresh,
        State::TimeExcluded,
        State::Duplicate,
        State::MarkedForDeletion,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Loaded => "loaded",
            State::NoMeta => "no-meta-json",
            State::CorruptedMeta => "corrupted-meta-json",
            State::Failed => "failed",
            State::TooFresh => "too-fresh",
            State::TimeExcluded => "time-excluded",
            State::Duplicate => "duplicate",
            State::MarkedForDeletion => "marked-for-deletion",
        }
    }
}

/// The blocks of a bucket after one search.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Blocks to read.
    pub loaded: BTreeMap<BlockId, Arc<Meta>>,
    /// Every block whose meta.json is readable, whatever its state.
    pub readable: BTreeMap<BlockId, Arc<Meta>>,
    /// Every folder named as a block, with its state and, where it is not loaded, the reason in words.
    pub states: BTreeMap<BlockId, (State, String)>,
    /// Deletion marks, also of blocks that are still read.
    pub marks: BTreeMap<BlockId, DeletionMark>,
}

impl Catalogue {
    /// Blocks in a state.
    pub fn in_state(&self, state: State) -> impl Iterator<Item = BlockId> {
        self.states.iter().filter(move |(_, (s, _))| *s == state).map(|(id, _)| *id)
    }
}

pub(crate) struct Found {
    pub id: BlockId,
    pub known: Known,
    pub mark: Option<DeletionMark>,
}

pub(crate) enum Known {
    NoMeta,
    Corrupted(Error),
    Failed(Error),
    Meta(Arc<Meta>),
}

pub(crate) struct Rules {
    pub now_ms: i64,
    pub range: TimeRange,
    pub consistency_delay: Duration,
    pub ignore_deletion_marks_delay: Duration,
}

/// Applies the rules in Thanos's order: time, freshness, marks, duplicates.
pub(crate) fn settle(found: Vec<Found>, rules: &Rules) -> Catalogue {
    let mut out = Catalogue::default();
    for Found { id, known, mark } in found {
        let judged = match known {
            Known::NoMeta => Err((State::NoMeta, "it has no meta.json (yet)".to_owned())),
            Known::Corrupted(error) => Err((State::CorruptedMeta, error.message)),
            Known::Failed(error) => Err((State::Failed, error.message)),
            Known::Meta(meta) => {
                out.readable.insert(id, meta.clone());
                judge(meta, mark.as_ref(), rules)
            }
        };
        match judged {
            Ok(meta) => {
                out.states.insert(id, (State::Loaded, String::new()));
                out.loaded.insert(id, meta);
            }
            Err(state) => {
                out.states.insert(id, state);
            }
        }
        out.marks.extend(mark.map(|mark| (id, mark)));
    }
    for (id, of) in duplicates(&out.loaded) {
        out.loaded.remove(&id);
        out.states.insert(id, (State::Duplicate, format!("all its sources are in block {of}")));
    }
    out
}

fn judge(meta: Arc<Meta>, mark: Option<&DeletionMark>, rules: &Rules) -> Result<Arc<Meta>, (State, String)> {
    if !meta.range().overlaps(&rules.range) {
        return Err((State::TimeExcluded, "it lies outside of the configured time range".to_owned()));
    }
    let delay = rules.consistency_delay.as_millis() as i64;
    let source = meta.thanos.as_ref().map_or("", |t| &t.source);
    // What a compactor writes replaces blocks that are there: it must be seen before those are gone.
    if delay > 0 && !matches!(source, "compactor" | "compactor.repair" | "bucket.repair") {
        let uploaded = meta.thanos.as_ref().and_then(|t| parse_rfc3339(&t.upload_time)).filter(|ms| *ms > 0);
        let since = uploaded.unwrap_or(meta.ulid.created_ms());
        if rules.now_ms.saturating_sub(since) < delay {
            return Err((State::TooFresh, "it is younger than the consistency delay".to_owned()));
        }
    }
    if let Some(mark) = mark {
        let age = rules.now_ms.saturating_sub(mark.deletion_time.saturating_mul(1000));
        if age > rules.ignore_deletion_marks_delay.as_millis() as i64 {
            return Err((State::MarkedForDeletion, format!("marked for deletion: {}", mark.details)));
        }
    }
    Ok(meta)
}

/// Blocks all of whose sources another block of the same resolution and external labels has too, and that
/// block. Of two with equal sources the older ULID stays, as in Thanos.
fn duplicates(loaded: &BTreeMap<BlockId, Arc<Meta>>) -> Vec<(BlockId, BlockId)> {
    let mut groups: HashMap<(i64, String), Vec<&Arc<Meta>>> = HashMap::new();
    for meta in loaded.values() {
        let labels = meta.thanos.as_ref().map(|t| format!("{:?}", t.labels)).unwrap_or_default();
        groups.entry((meta.resolution(), labels)).or_default().push(meta);
    }
    let mut out = Vec::new();
    for mut group in groups.into_values() {
        group.sort_by_key(|m| (std::cmp::Reverse(m.compaction.sources.len()), m.ulid));
        // Kept blocks by each of their sources, so that a block is only compared with those it could be part of.
        let mut by_source: HashMap<BlockId, Vec<&Arc<Meta>>> = HashMap::new();
        for meta in group {
            let sources = &meta.compaction.sources;
            let cover = sources.first().and_then(|first| by_source.get(first)).and_then(|kept| {
                kept.iter().find(|k| sources.iter().all(|s| k.compaction.sources.contains(s)))
            });
            match cover {
                Some(cover) => out.push((meta.ulid, cover.ulid)),
                None => sources.iter().for_each(|s| by_source.entry(*s).or_default().push(meta)),
            }
        }
    }
    out
}

/// Milliseconds since the epoch of `2024-01-02T03:04:05.678Z` or with an offset; none for anything else.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let sign = |at: usize, one: u8| text.as_bytes().get(at) == Some(&one);
    if !(sign(4, b'-') && sign(7, b'-') && sign(10, b'T') && sign(13, b':') && sign(16, b':')) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let three: String = fraction[..digits].chars().chain("000".chars()).take(3).collect();
        ms = three.parse().ok()?;
        rest = &fraction[digits..];
    }
    let offset_minutes = match (rest.as_bytes().first()?, rest.len()) {
        (b'Z', 1) => 0,
        (sign @ (b'+' | b'-'), 6) => {
            let at = text.len() - 6;
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    // Days of the civil calendar, counted in years that begin in March.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let yoe = y.rem_euclid(400);
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some(((days * 24 + hour) * 60 + minute - offset_minutes) * 60_000 + second * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use block::meta::{Thanos, rfc3339};
    use proptest::prelude::*;

    use super::*;

    fn id(n: i64) -> BlockId {
        BlockId::from_parts(n, 0)
    }

    fn meta(n: i64, sources: &[i64], source: &str) -> Known {
        let text = format!("{{\"ulid\":\"{}\",\"minTime\":0,\"maxTime\":100,\"version\":1}}", id(n));
        let mut meta = Meta::parse(text.as_bytes()).unwrap();
        meta.compaction.sources = sources.iter().map(|s| id(*s)).collect();
        meta.thanos = Some(Thanos { source: source.to_owned(), ..Thanos::default() });
        Known::Meta(Arc::new(meta))
    }

    fn state_of(found: Vec<Found>, rules: &Rules) -> Vec<&'static str> {
        settle(found, rules).states.values().map(|(state, _)| state.as_str()).collect()
    }

    #[test]
    fn every_block_has_one_state() {
        let now_ms = 1_000_000_000;
        let rules = Rules {
            now_ms,
            range: TimeRange::ALL,
            consistency_delay: Duration::from_secs(60),
            ignore_deletion_marks_delay: Duration::from_secs(100),
        };
        let plain = |n, known| Found { id: id(n), known, mark: None };
        let mark = |n, age| Some(DeletionMark::new(id(n), now_ms - age, "test"));
        let bad = || Error::new(model::Kind::Corrupt, "bad");
        let found = vec![
            plain(1, Known::NoMeta),
            plain(2, Known::Corrupted(bad())),
            plain(3, Known::Failed(bad())),
            plain(4, meta(4, &[4], "receive")),
            Found { id: id(5), known: meta(5, &[5], "receive"), mark: mark(5, 50_000) },
            Found { id: id(6), known: meta(6, &[6], "receive"), mark: mark(6, 150_000) },
            plain(now_ms - 1, meta(now_ms - 1, &[7], "receive")),
            plain(now_ms, meta(now_ms, &[8], "compactor")),
        ];
        assert_eq!(
            state_of(found, &rules),
            [
                "no-meta-json",
                "corrupted-meta-json",
                "failed",
                "loaded",
                "loaded",
                "marked-for-deletion",
                "too-fresh",
                "loaded"
            ]
        );
        let narrow = Rules { range: TimeRange::new(100, 200), ..rules };
        assert_eq!(state_of(vec![plain(4, meta(4, &[4], ""))], &narrow), ["time-excluded"]);
    }

    #[test]
    fn what_a_merged_block_has_is_left_out() {
        let rules = Rules {
            now_ms: 0,
            range: TimeRange::ALL,
            consistency_delay: Duration::ZERO,
            ignore_deletion_marks_delay: Duration::ZERO,
        };
        let found = |n, sources: &[i64]| Found { id: id(n), known: meta(n, sources, ""), mark: None };
        let all = vec![found(1, &[1]), found(2, &[2]), found(3, &[3]), found(4, &[1, 2]), found(5, &[2, 1])];
        assert_eq!(state_of(all, &rules), ["duplicate", "duplicate", "loaded", "loaded", "duplicate"]);
    }

    #[test]
    fn times_read_back() {
        assert_eq!(parse_rfc3339("2024-02-29T12:34:56.12Z"), Some(1_709_210_096_120));
        assert_eq!(parse_rfc3339("2024-02-29T14:34:56.123456789+02:00"), Some(1_709_210_096_123));
        assert!(parse_rfc3339("0001-01-01T00:00:00Z").unwrap() < 0);
        for bad in ["", "2024", "2024-02-29 12:34:56Z", "2024-13-29T12:34:56Z", "2024-02-29T12:34:56"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_time_round_trips(ms in -62_135_596_800_000i64..253_402_300_800_000) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }

        #[test]
        fn any_text_is_no_panic(text in "\\PC{0,40}") {
            parse_rfc3339(&text);
        }
    }
}
