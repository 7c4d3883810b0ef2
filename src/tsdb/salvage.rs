//! A new log out of what is left of a damaged one, such that the engine opens it.
//!
//! Three things cannot be copied blindly. Samples of series whose labels are lost are skipped at replay: the new
//! checkpoint says for every shard that such numbers may be unknown. A freeze without its cut would have the
//! start remove a block that may be whole: it is left out, and its samples, if they are still in the log, are
//! then in head and block alike, which reads take as one. A cut without its freeze does nothing by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use runtime::World;
use wal::{Losses, NewLog, Readable};

use crate::Error;
use crate::payload::{self, Reader};
use crate::rows;

/// Room above the highest number of a series that was seen, for those in records that are lost.
const UNSEEN_SERIES: u64 = 1 << 24;

/// What became of a log.
#[derive(Clone, Debug, Default)]
pub struct Salvaged {
    pub losses: Losses,
    /// Records of the new log, by what they hold.
    pub kept: BTreeMap<&'static str, u64>,
    /// Records that could be read and are left out, and why.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Float samples in the new log, and those among them whose series is lost with its labels.
    pub samples: u64,
    pub orphans: u64,
}

/// Copies what can be read of the log in `from` into a new log in `to`, which must be new or empty. `from` is not
/// changed.
pub fn salvage(world: &World, from: &Path, to: &Path) -> Result<Salvaged, Error> {
    let mut seen = Seen::default();
    wal::read_damaged::<Error>(world, from, &mut |record| {
        seen.note(&record);
        Ok(())
    })?;
    let mut out = Salvaged::default();
    let mut new = NewLog::create(world, to)?;
    let mut log_begun = false;
    let losses = wal::read_damaged::<Error>(world, from, &mut |record| {
        if !seen.wants(&record) {
            *out.left_out.entry("freezes without their cut, or malformed records").or_default() += 1;
            return Ok(());
        }
        *out.kept.entry(name(record.kind)).or_default() += 1;
        if matches!(record.kind, payload::FLOATS | payload::SAMPLES | payload::HISTOGRAMS) {
            let (samples, orphans) = seen.samples(record.kind, record.payload)?;
            out.samples += samples;
            out.orphans += orphans;
        }
        if record.from_checkpoint {
            return new.put_checkpoint(record.kind, record.payload);
        }
        if !log_begun {
            log_begun = true;
            seen.end_checkpoint(&mut new)?;
        }
        new.put(record.kind, record.payload)
    })?;
    if !log_begun {
        seen.end_checkpoint(&mut new)?;
    }
    new.finish()?;
    out.losses = losses;
    Ok(out)
}

fn name(kind: u8) -> &'static str {
    match kind {
        payload::SERIES => "series",
        payload::FLOATS | payload::SAMPLES => "floats",
        payload::FREEZE => "freezes",
        payload::CUT => "cuts",
        payload::SHARD => "shards",
        payload::DELETE => "deletions",
        payload::HISTOGRAMS => "histograms",
        payload::EXEMPLARS => "exemplars",
        payload::ZEROS => "zeros",
        _ => "others",
    }
}

/// Visits the series' number of every entry of a record, behind its shard.
fn each_id(kind: u8, reader: Reader<'_>, mut each: impl FnMut(u64)) -> Result<(), Error> {
    let mut visit = |id| {
        each(id);
        Ok(())
    };
    match kind {
        payload::FLOATS | payload::SAMPLES => reader.floats(kind, |id, _| visit(id)).map(drop),
        payload::HISTOGRAMS => rows::read_natives(reader, |id, _, _| visit(id)),
        payload::EXEMPLARS => rows::read_exemplars(reader, |id, _| visit(id)),
        _ => Ok(()),
    }
}

/// What the first pass has learned.
#[derive(Default)]
struct Seen {
    /// Blocks whose cut can be read.
    cut: HashSet<String>,
    /// Numbers of series with labels, by shard.
    series: HashMap<u16, HashSet<u64>>,
    /// Above every number seen, by shard.
    next: BTreeMap<u16, u64>,
}

impl Seen {
    /// A payload that is malformed in spite of its checksum teaches nothing.
    fn note(&mut self, record: &Readable<'_>) {
        let mut reader = Reader::new(record.payload);
        let _ = match record.kind {
            payload::CUT => {
                reader.tenant().and_then(|_| Ok(self.cut.insert(reader.text()?.to_owned()))).map(drop)
            }
            payload::SERIES => self.note_series(reader),
            payload::FLOATS | payload::SAMPLES | payload::HISTOGRAMS | payload::EXEMPLARS => {
                reader.shard().and_then(|shard| {
                    let next = self.next.entry(shard).or_default();
                    each_id(record.kind, reader, |id| *next = (*next).max(id.saturating_add(1)))
                })
            }
            payload::SHARD => reader.shard().and_then(|shard| {
                let id = reader.v()?;
                let next = self.next.entry(shard).or_default();
                *next = (*next).max(id);
                Ok(())
            }),
            _ => Ok(()),
        };
    }

    fn note_series(&mut self, mut reader: Reader<'_>) -> Result<(), Error> {
        let shard = reader.shard()?;
        reader.tenant()?;
        while !reader.is_empty() {
            let id = reader.v()?;
            reader.z()?;
            reader.bytes()?;
            self.series.entry(shard).or_default().insert(id);
            let next = self.next.entry(shard).or_default();
            *next = (*next).max(id.saturating_add(1));
        }
        Ok(())
    }

    fn wants(&self, record: &Readable<'_>) -> bool {
        if record.kind != payload::FREEZE {
            return true;
        }
        let mut reader = Reader::new(record.payload);
        let block = reader.shard().and_then(|_| reader.tenant()).and_then(|_| reader.text());
        block.is_ok_and(|block| self.cut.contains(block))
    }

    /// Samples of a record, and those of series without labels.
    fn samples(&self, kind: u8, bytes: &[u8]) -> Result<(u64, u64), Error> {
        let mut reader = Reader::new(bytes);
        let known = self.series.get(&reader.shard()?);
        let (mut samples, mut orphans) = (0, 0);
        each_id(kind, reader, |id| {
            samples += 1;
            orphans += u64::from(!known.is_some_and(|known| known.contains(&id)));
        })?;
        Ok((samples, orphans))
    }

    fn end_checkpoint(&self, new: &mut NewLog) -> Result<(), Error> {
        for (shard, next) in &self.next {
            let next = next.saturating_add(UNSEEN_SERIES);
            new.put_checkpoint(payload::SHARD, &payload::shard(*shard, next))?;
        }
        Ok(())
    }
}
