//! Whether a histogram can follow in a chunk: the one rule for whole and float counts.

use model::histogram::{ResetHint, Shape, Span};

use super::layout::{Layout, MAX_BUCKETS, buckets, union};
use crate::Error;
use crate::xor::MAX_SAMPLES;

/// What must happen for a sample to follow the last one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Judgement {
    /// Its buckets are the chunk's.
    Same,
    /// Its buckets are moved to these; where there are more of them than the chunk has, it is written anew first.
    Wider { positive: Vec<Span>, negative: Vec<Span> },
    /// It cannot; the next chunk's header says this of resets.
    NewChunk(ResetHint),
}

/// Whether a sample can be pushed at all, with so many buckets, to a chunk of so many samples.
pub(super) fn check(new: &Shape<'_>, samples: u16, positive: usize, negative: usize) -> Result<(), Error> {
    if samples == MAX_SAMPLES {
        return Err(Error::Full);
    }
    if !new.stale && (buckets(new.positive) != positive || buckets(new.negative) != negative) {
        return Err(Error::Header("histogram's spans do not hold its buckets"));
    }
    Ok(())
}

/// The header of a chunk that begins with a sample, where `known` is what its predecessor told of resets.
pub(super) fn header(new: &Shape<'_>, known: ResetHint) -> ResetHint {
    match new.hint {
        ResetHint::Gauge | ResetHint::Reset if !new.stale => new.hint,
        _ => known,
    }
}

/// `after_stale`: the chunk's last sample is a stale marker. `shrank` tells whether any count fell, and is asked only
/// where layouts can be compared.
pub(super) fn judge(
    layout: &Layout,
    header: ResetHint,
    after_stale: bool,
    new: &Shape<'_>,
    shrank: impl FnOnce() -> bool,
) -> Judgement {
    use Judgement::{NewChunk, Same, Wider};
    // The counts of a stale marker mean nothing, so it can follow anything, and only its like can follow it.
    if new.stale {
        return Same;
    }
    let gauge = new.hint == ResetHint::Gauge;
    if after_stale || gauge != (header == ResetHint::Gauge) {
        return NewChunk(match new.hint {
            ResetHint::Gauge | ResetHint::Reset => new.hint,
            _ => ResetHint::Unknown,
        });
    }
    if !layout.comparable(new.schema, new.zero_threshold, new.custom) {
        return NewChunk(if gauge { ResetHint::Gauge } else { ResetHint::Reset });
    }
    // Readers take every sample but the first of a counter's chunk as "not reset", so this must be exact.
    if !gauge && (new.hint == ResetHint::Reset || shrank()) {
        return NewChunk(ResetHint::Reset);
    }
    if layout.positive == new.positive && layout.negative == new.negative {
        return Same;
    }
    let (positive, negative) = (union(&layout.positive, new.positive), union(&layout.negative, new.negative));
    let (up, down) = (buckets(&positive), buckets(&negative));
    if up == buckets(&layout.positive) && down == buckets(&layout.negative) {
        // Nothing new, or the same buckets spelt by other spans: the chunk's own spelling stays.
        return Wider { positive: layout.positive.clone(), negative: layout.negative.clone() };
    }
    if up.max(down) as u64 > MAX_BUCKETS {
        return NewChunk(if gauge { ResetHint::Gauge } else { ResetHint::NotReset });
    }
    Wider { positive, negative }
}

/// The header of a chunk that begins with this sample where the chunk before would have been given `judgement` on it.
pub(super) fn header_for_next(judgement: &Judgement, new: &Shape<'_>) -> ResetHint {
    match judgement {
        _ if new.stale => ResetHint::Unknown,
        _ if matches!(new.hint, ResetHint::Gauge | ResetHint::Reset) => new.hint,
        Judgement::NewChunk(header) => *header,
        Judgement::Same | Judgement::Wider { .. } => ResetHint::NotReset,
    }
}
