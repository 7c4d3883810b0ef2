//! Verdicts as they travel: run-length codes, and what a peer that knows no verdicts is told instead.

use std::collections::BTreeMap;

use storage::{Refusal, Verdict};
use tonic::{Code, Status};
use wire::pb::tributary::v1::Verdicts;

/// Codes below are passing or good; 16 + n is refusal n.
const REFUSED_FROM: u32 = 16;

pub(crate) fn encode(verdicts: impl IntoIterator<Item = Verdict>) -> Verdicts {
    let mut out = Verdicts::default();
    for verdict in verdicts {
        let code = code_of(verdict);
        match (out.codes.last(), out.counts.last_mut()) {
            (Some(&last), Some(count)) if last == code && *count < u32::MAX => *count += 1,
            _ => {
                out.codes.push(code);
                out.counts.push(1);
            }
        }
    }
    out
}

pub(crate) fn code_of(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Stored => 0,
        Verdict::Duplicate => 1,
        Verdict::Unavailable => 2,
        Verdict::Refused(refusal) => REFUSED_FROM + refusal as u32,
    }
}

/// Exactly `expected` verdicts, or what is wrong with them.
pub(crate) fn decode(wire: &Verdicts, expected: usize) -> Result<Vec<Verdict>, String> {
    if wire.codes.len() != wire.counts.len() {
        return Err(format!("{} codes for {} runs of verdicts", wire.codes.len(), wire.counts.len()));
    }
    let total: u64 = wire.counts.iter().map(|&n| n as u64).sum();
    if total != expected as u64 {
        return Err(format!("{total} verdicts for {expected} samples"));
    }
    let mut out = Vec::with_capacity(expected);
    for (&code, &count) in wire.codes.iter().zip(&wire.counts) {
        let verdict = verdict_of(code).ok_or_else(|| format!("verdict code {code} is not known"))?;
        out.extend(std::iter::repeat_n(verdict, count as usize));
    }
    Ok(out)
}

pub(crate) fn verdict_of(code: u32) -> Option<Verdict> {
    match code {
        0 => Some(Verdict::Stored),
        1 => Some(Verdict::Duplicate),
        2 => Some(Verdict::Unavailable),
        _ => {
            let refusal = u8::try_from(code.checked_sub(REFUSED_FROM)?).ok();
            // A peer of a later version has reasons of its own: as a fault of the answer they would have its sample sent
            // again for ever.
            Some(Verdict::Refused(refusal.and_then(Refusal::from_code).unwrap_or(Refusal::Unsupported)))
        }
    }
}

/// The one status by which Thanos learns what became of a batch: Unavailable makes it send again,
/// AlreadyExists makes it report a conflict to the sender, who drops the batch.
pub(crate) fn status_for_thanos(verdicts: impl IntoIterator<Item = Verdict>) -> Result<(), Status> {
    let (mut total, mut unavailable) = (0u64, 0u64);
    let mut refused: BTreeMap<Refusal, u64> = BTreeMap::new();
    for verdict in verdicts {
        total += 1;
        match verdict {
            Verdict::Stored | Verdict::Duplicate => {}
            Verdict::Unavailable => unavailable += 1,
            Verdict::Refused(refusal) => *refused.entry(refusal).or_default() += 1,
        }
    }
    if unavailable > 0 {
        return Err(Status::new(
            Code::Unavailable,
            format!("{unavailable} of {total} samples cannot be stored right now; send them again"),
        ));
    }
    if refused.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = refused.iter().map(|(why, n)| format!("{n}: {}", why.explain())).collect();
    Err(Status::new(Code::AlreadyExists, format!("not all samples were stored; {}", reasons.join("; "))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        let refused = (0..Refusal::ALL.len()).prop_map(|n| Verdict::Refused(Refusal::ALL[n]));
        prop_oneof![
            4 => Just(Verdict::Stored),
            1 => Just(Verdict::Duplicate),
            1 => Just(Verdict::Unavailable),
            1 => refused
        ]
    }

    proptest! {
        #[test]
        fn round_trip(verdicts in proptest::collection::vec(any_verdict(), 0..200)) {
            let wire = encode(verdicts.iter().copied());
            prop_assert_eq!(decode(&wire, verdicts.len()).unwrap(), verdicts);
        }

        #[test]
        fn arbitrary_runs_never_panic(
            codes in proptest::collection::vec(any::<u32>(), 0..5),
            counts in proptest::collection::vec(any::<u32>(), 0..5),
            expected in 0..10usize,
        ) {
            let _ = decode(&Verdicts { codes, counts, ..Verdicts::default() }, expected);
        }
    }

    #[test]
    fn a_run_that_claims_too_much_is_refused_unread() {
        let wire = Verdicts { codes: vec![0], counts: vec![u32::MAX], stale: None, pairs: Vec::new() };
        assert!(decode(&wire, 3).is_err());
        assert!(
            decode(&Verdicts { codes: vec![9], counts: vec![1], stale: None, pairs: Vec::new() }, 1).is_err()
        );
    }

    #[test]
    fn a_reason_of_a_later_version_is_a_refusal() {
        let wire = Verdicts {
            codes: vec![0, 16 + 200, 16 + 3000],
            counts: vec![1, 1, 1],
            stale: None,
            pairs: Vec::new(),
        };
        let refused = Verdict::Refused(Refusal::Unsupported);
        assert_eq!(decode(&wire, 3).unwrap(), [Verdict::Stored, refused, refused]);
    }

    #[test]
    fn what_thanos_is_told() {
        let code = |verdicts: &[Verdict]| status_for_thanos(verdicts.iter().copied()).err().map(|s| s.code());
        let conflict = Verdict::Refused(Refusal::Conflict);
        assert_eq!(code(&[Verdict::Stored, Verdict::Duplicate]), None);
        assert_eq!(code(&[Verdict::Stored, conflict]), Some(Code::AlreadyExists));
        assert_eq!(code(&[Verdict::Unavailable, conflict]), Some(Code::Unavailable));
    }
}
