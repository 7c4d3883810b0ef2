//! A reply: what became of each sample of a request, and which of its names are kept.

use storage::Verdict;

use super::FrameError;
use super::bytes::{Put, Read};
use super::frame::{self, REPLY};
use crate::write::StaleEpoch;
use crate::write::verdicts::{code_of, verdict_of};

/// Everything was stored, and every name is kept.
const ALL: u8 = 0;
/// Runs of verdicts follow, then the names that are not kept.
const RUNS: u8 = 1;
/// Nothing was judged.
const ERROR: u8 = 2;

/// Nothing was judged: the request's ring epoch is over.
const STALE: u8 = 3;

/// Code of samples whose reference means nothing to the receiver.
const UNKNOWN: u32 = 3;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub id: u64,
    pub result: Result<Told, Fault>,
}

/// Verdicts of a request that was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Runs of samples, row by row, of each its floats, histograms and exemplars. No verdict: the row's reference is
    /// not known, and it is to be sent again with its labels. Empty where all were stored.
    pub runs: Vec<(Option<Verdict>, u32)>,
    /// Those of the request's definitions, by their order in it, whose names are not kept.
    pub forgotten: Vec<u32>,
}

/// Why nothing was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Error {
        /// Whether it passes by itself.
        passing: bool,
        message: String,
    },
    Stale(StaleEpoch),
}

impl Told {
    /// Adds a verdict to the last run or a new one.
    pub(crate) fn push(&mut self, verdict: Option<Verdict>, count: u32) {
        match self.runs.last_mut() {
            _ if count == 0 => {}
            Some((last, many)) if *last == verdict => *many = many.saturating_add(count),
            _ => self.runs.push((verdict, count)),
        }
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        frame::begin(REPLY, &mut out);
        out.put_number(self.id);
        match &self.result {
            Ok(told)
                if told.forgotten.is_empty()
                    && matches!(told.runs[..], [] | [(Some(Verdict::Stored), _)]) =>
            {
                out.push(ALL);
            }
            Ok(told) => {
                out.push(RUNS);
                out.put_number(told.runs.len() as u64);
                for (verdict, count) in &told.runs {
                    out.put_number(verdict.map_or(UNKNOWN, code_of).into());
                    out.put_number((*count).into());
                }
                out.put_number(told.forgotten.len() as u64);
                told.forgotten.iter().for_each(|place| out.put_number((*place).into()));
            }
            Err(Fault::Error { passing, message }) => {
                out.push(ERROR);
                out.push(u8::from(*passing));
                out.put_counted(message.as_bytes());
            }
            Err(Fault::Stale(stale)) => {
                out.push(STALE);
                out.put_number(stale.epoch);
                out.put_counted(&stale.ring);
            }
        }
        frame::end(&mut out);
        out
    }

    pub(crate) fn decode(mut read: Read<'_>) -> Result<Reply, FrameError> {
        let id = read.number()?;
        let result = match read.byte()? {
            ALL => Ok(Told::default()),
            RUNS => {
                let mut told = Told::default();
                for _ in 0..read.number()? {
                    let (code, count) = (read.short()?, read.short()?);
                    let verdict = match code {
                        UNKNOWN => None,
                        code => {
                            Some(verdict_of(code).ok_or(FrameError::Malformed("a verdict that is none"))?)
                        }
                    };
                    told.runs.push((verdict, count));
                }
                for _ in 0..read.number()? {
                    told.forgotten.push(read.short()?);
                }
                Ok(told)
            }
            ERROR => {
                let passing = read.byte()? != 0;
                Err(Fault::Error { passing, message: String::from_utf8_lossy(read.counted()?).into_owned() })
            }
            STALE => Err(Fault::Stale(StaleEpoch { epoch: read.number()?, ring: read.counted()?.to_vec() })),
            _ => return Err(FrameError::Malformed("an answer of a later version")),
        };
        if !read.is_done() {
            return Err(FrameError::Malformed("bytes behind its end"));
        }
        Ok(Reply { id, result })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::Refusal;

    use super::*;

    fn told() -> impl Strategy<Value = Told> {
        let refused = (0..Refusal::ALL.len()).prop_map(|n| Verdict::Refused(Refusal::ALL[n]));
        let verdict = prop_oneof![
            3 => Just(Verdict::Stored),
            1 => Just(Verdict::Duplicate),
            1 => Just(Verdict::Unavailable),
            1 => refused
        ];
        let runs = proptest::collection::vec((proptest::option::weighted(0.8, verdict), 1..400u32), 1..6);
        (runs, proptest::collection::vec(any::<u32>(), 0..3)).prop_map(|(runs, forgotten)| {
            let mut told = Told { forgotten, ..Told::default() };
            runs.into_iter().for_each(|(verdict, count)| told.push(verdict, count));
            told
        })
    }

    fn back(reply: &Reply) -> Reply {
        let frame = reply.encode();
        let (kind, body) = frame::open(&frame).unwrap();
        assert_eq!(kind, REPLY);
        Reply::decode(body).unwrap()
    }

    proptest! {
        #[test]
        fn round_trip(id: u64, told in told()) {
            let all = told.forgotten.is_empty() && matches!(told.runs[..], [(Some(Verdict::Stored), _)]);
            let expected = if all { Told::default() } else { told.clone() };
            prop_assert_eq!(back(&Reply { id, result: Ok(told) }), Reply { id, result: Ok(expected) });
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Reply::decode(Read(&bytes));
        }
    }

    #[test]
    fn all_stored_takes_a_few_bytes() {
        let told = Told { runs: vec![(Some(Verdict::Stored), 100_000)], ..Told::default() };
        assert!(Reply { id: 1_000_000, result: Ok(told) }.encode().len() <= 9);
        let full = Fault::Error { passing: true, message: "full".to_owned() };
        let stale = Fault::Stale(StaleEpoch { epoch: 1 << 40, ring: b"{}".to_vec() });
        for fault in [full, stale] {
            let reply = Reply { id: 0, result: Err(fault) };
            assert_eq!(back(&reply), reply);
        }
    }
}
