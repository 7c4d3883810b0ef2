//! Opening a log: which segments there are, their records in order, and what a bad one means.
//!
//! A record that does not check out is the torn tail of a crash if nothing after it proves that it had been
//! durable; then it and all after it were never acknowledged, and the tail is zeroed. Any later record that
//! was written when the bad one was durable already (it says so in its header), or any record of a later
//! segment, is such a proof: then acknowledged data is damaged, and the log is refused. Records that check out and that
//! nothing proves are written once more and synced before anybody counts on them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use model::Kind;
use runtime::{Disk, World};

use crate::Error;
use crate::checkpoint;
use crate::error;
use crate::log::{Entry, Report, Settings, check};
use crate::record::{FIRST_SKIPPABLE_KIND, HEADER_BYTES, Header, Parsed, VERSION, parse_header, verify};
use crate::segment::{self, SEGMENT_HEADER_BYTES, Segment};
use crate::staging::Staging;

/// How much is read at once.
pub(crate) const READ_BYTES: usize = 1 << 20;

pub(crate) struct Opened {
    pub staging: Staging,
    pub report: Report,
}

pub(crate) fn open<E: From<Error>>(
    world: &World,
    settings: &Settings,
    replay: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<Opened, E> {
    check(settings)?;
    let (disk, dir) = (&*world.disk, settings.dir.as_path());
    disk.create_dir_all(dir).map_err(|e| error::io("create log folder", dir, e))?;
    if let Some(parent) = dir.parent() {
        disk.sync_dir(parent).map_err(|e| error::io("sync folder", parent, e))?;
    }
    let listing = tidy(disk, dir)?;
    let mut segments = Vec::new();
    for index in &listing.segments {
        segments.push(segment::open(disk, dir, *index)?);
    }
    if let Some(pair) = segments.windows(2).find(|pair| pair[0].index + 1 != pair[1].index) {
        return Err(missing(dir, &format!("log segment {} is missing", pair[0].index + 1)).into());
    }
    if let (Some(checkpoint), Some(first)) = (listing.checkpoint, segments.first())
        && first.index != checkpoint
    {
        let text =
            format!("the checkpoint continues with segment {checkpoint}, the first is {}", first.index);
        return Err(missing(dir, &text).into());
    }
    if listing.checkpoint.is_none() && segments.first().is_some_and(|s| s.index != 1) {
        return Err(missing(dir, "the first log segments and their checkpoint are missing").into());
    }

    let total = segments.iter().map(|s| s.len).sum::<u64>();
    let mut report = Report { segments: segments.len(), ..Report::default() };
    let mut next_seq = 1;
    if let Some(index) = listing.checkpoint {
        next_seq = checkpoint::read(disk, dir, index, settings, &mut |kind, seq, payload| {
            replay(Entry { kind, seq, payload, from_checkpoint: true, progress: (0, total) })
        })?;
    }

    let mut firsts = Vec::new();
    let mut tail: Option<(usize, u64)> = None;
    // Records that none behind them says to be durable, and where they begin: all in one segment, and few.
    let mut unproven: VecDeque<(u64, u64)> = VecDeque::new();
    let mut done = 0;
    for (at, segment) in segments.iter().enumerate() {
        let mut scan = Scan::new(segment);
        let mut any = false;
        loop {
            let progress = (done + scan.offset(), total);
            let offset = scan.offset();
            let Some((header, payload)) = scan.next(next_seq)? else { break };
            if !any {
                any = true;
                firsts.push((header.seq, segment.index));
                unproven.clear();
            }
            while unproven.front().is_some_and(|(seq, _)| *seq <= header.synced()) {
                unproven.pop_front();
            }
            unproven.push_back((header.seq, offset));
            refuse_unknown(&header, settings, dir)?;
            if header.kind < FIRST_SKIPPABLE_KIND || settings.known_kinds.contains(&header.kind) {
                replay(Entry {
                    kind: header.kind,
                    seq: header.seq,
                    payload,
                    from_checkpoint: false,
                    progress,
                })?;
            }
            next_seq = header.seq + 1;
            report.records += 1;
        }
        if any || tail.is_none() {
            tail = Some((at, scan.offset()));
        }
        report.bytes += scan.offset() - SEGMENT_HEADER_BYTES;
        done += segment.len;
        if let Some(dirty) = scan.dirty_until()? {
            let proof = match scan.find_proof(next_seq, dirty)? {
                Some(offset) => Some((segment.index, offset)),
                None => first_record_after(&segments[at + 1..])?,
            };
            if let Some((index, offset)) = proof {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!(
                        "log segment {} is damaged at byte {}: record {next_seq} was durable (segment {index} has a \
                         later record at byte {offset}); run `tributary tools wal inspect` to see the \
                         damage, `tributary tools wal salvage` to make a log of the rest, or restore the folder",
                        segment::segment_path(dir, segment.index).display(),
                        scan.offset(),
                    ),
                )
                .into());
            }
            report.healed_bytes = dirty - scan.offset();
            heal(segment, scan.offset(), dirty)?;
            tail = Some((at, scan.offset()));
            break;
        }
        // A clean end before the segment's end is right only if the next one goes on without a gap.
        if let Some((index, _)) = match segments.get(at + 1) {
            Some(next) => gap(next, next_seq)?,
            None => None,
        } {
            let text = format!("records from {next_seq} on are missing before log segment {index}");
            return Err(missing(dir, &text).into());
        }
    }

    if let (Some((at, until)), Some((_, from))) = (tail, unproven.front()) {
        settle(&segments[at], *from, until)?;
    }
    let (current, offset, mut spare) = match tail {
        None => {
            let index = listing.checkpoint.unwrap_or(1);
            (segment::create(disk, dir, index, settings.segment_bytes)?, SEGMENT_HEADER_BYTES, None)
        }
        Some((at, offset)) => {
            let mut rest = segments.drain(at..);
            let Some(current) = rest.next() else {
                return Err(Error::new(Kind::Internal, "log segment vanished while it was opened").into());
            };
            let spare = rest.next();
            for empty in rest {
                remove(disk, dir, empty.index)?;
            }
            (current, offset, spare)
        }
    };
    // A spare that is smaller than now wanted would break the promise made to permits.
    if let Some(small) = spare.take_if(|spare| spare.len < settings.segment_bytes) {
        remove(disk, dir, small.index)?;
    }
    let spare = spare.map(Arc::new);
    metrics::gauge!("tributary_wal_segments").set(listing.segments.len().max(1) as f64);
    let staging = Staging {
        buf: Vec::new(),
        runs: Vec::new(),
        next_seq,
        current: Arc::new(current),
        offset,
        spare,
        reserved: 0,
        firsts,
        read_only: None,
        sync_wanted: 0,
        announced: false,
        closed: false,
        abandoned: false,
    };
    Ok(Opened { staging, report })
}

fn remove(disk: &dyn Disk, dir: &Path, index: u64) -> Result<(), Error> {
    let path = segment::segment_path(dir, index);
    disk.remove_file(&path).map_err(|e| error::io("remove log segment", &path, e))?;
    disk.sync_dir(dir).map_err(|e| error::io("sync log folder", dir, e))
}

struct Listing {
    segments: Vec<u64>,
    checkpoint: Option<u64>,
}

/// Lists segments and the newest checkpoint, and removes temporary files and what a checkpoint has replaced.
fn tidy(disk: &dyn Disk, dir: &Path) -> Result<Listing, Error> {
    let names = disk.list(dir).map_err(|e| error::io("list log folder", dir, e))?;
    let checkpoint = names.iter().filter_map(|name| segment::index_of(name, checkpoint::PREFIX)).max();
    let mut segments = Vec::new();
    for name in &names {
        let replaced = |index: u64| checkpoint.is_some_and(|c| index < c);
        let segment = segment::index_of(name, "segment-");
        let obsolete = name.ends_with(".tmp")
            || segment.is_some_and(replaced)
            || segment::index_of(name, checkpoint::PREFIX).is_some_and(replaced);
        if obsolete {
            let path = dir.join(name);
            disk.remove_file(&path).map_err(|e| error::io("remove obsolete log file", &path, e))?;
        } else {
            segments.extend(segment);
        }
    }
    segments.sort_unstable();
    Ok(Listing { segments, checkpoint })
}

pub(crate) fn refuse_unknown(header: &Header, settings: &Settings, dir: &Path) -> Result<(), Error> {
    if header.version > VERSION
        || (header.kind < FIRST_SKIPPABLE_KIND && !settings.known_kinds.contains(&header.kind))
    {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "log in {} has a record of kind {} and version {} that this build does not know; \
                 start the newer version again",
                dir.display(),
                header.kind,
                header.version
            ),
        ));
    }
    Ok(())
}

fn missing(dir: &Path, what: &str) -> Error {
    Error::new(
        Kind::Corrupt,
        format!(
            "{what} in {}; restore the folder, or run `tributary tools wal inspect` to see the damage and `tributary tools wal \
             salvage` to make a log of the rest",
            dir.display()
        ),
    )
}

/// Whether the next segment begins with another record than `expected`: where, if so.
fn gap(next: &Segment, expected: u64) -> Result<Option<(u64, u64)>, Error> {
    let mut scan = Scan::new(next);
    Ok(scan.peek_any()?.filter(|header| header.seq != expected).map(|h| (next.index, h.seq)))
}

/// The first record of any of these segments.
fn first_record_after(segments: &[Segment]) -> Result<Option<(u64, u64)>, Error> {
    for segment in segments {
        if Scan::new(segment).peek_any()?.is_some() {
            return Ok(Some((segment.index, SEGMENT_HEADER_BYTES)));
        }
    }
    Ok(None)
}

/// Zeroes what a crash left behind, so that it can never be read as a record later.
fn heal(segment: &Segment, from: u64, until: u64) -> Result<(), Error> {
    let path = &segment.path;
    tracing::warn!(
        segment = %path.display(), at = from, bytes = until - from,
        "log ends in a torn write that was never acknowledged; it is removed"
    );
    metrics::counter!("tributary_wal_torn_tails_healed_total").increment(1);
    let zeroes = vec![0; (until - from) as usize];
    segment.file.write_all_at(&zeroes, from).map_err(|e| error::io("heal log segment", path, e))?;
    segment.file.sync_data().map_err(|e| error::io("sync log segment", path, e))
}

/// Makes durable what was read and may not be: after a sync that failed a system still shows what was written, and never writes
/// it again by itself. So it is written again; what is durable already is not changed by that.
fn settle(segment: &Segment, from: u64, until: u64) -> Result<(), Error> {
    let path = &segment.path;
    let mut buf = Vec::new();
    let mut at = from;
    while at < until {
        buf.resize((until - at).min(READ_BYTES as u64) as usize, 0);
        segment.file.read_exact_at(&mut buf, at).map_err(|e| error::io("read log segment", path, e))?;
        segment.file.write_all_at(&buf, at).map_err(|e| error::io("write log segment again", path, e))?;
        at += buf.len() as u64;
    }
    segment.file.sync_data().map_err(|e| error::io("sync log segment", path, e))
}

/// Bytes that are not records, as first and end, and the header behind them.
pub(crate) type Sought = (Option<(u64, u64)>, Option<Header>);

/// Walks a segment with a bounded buffer.
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    buf: Vec<u8>,
    /// Where in the file the buffer starts.
    base: u64,
    /// Next byte to parse, within the buffer.
    at: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(segment: &'a Segment) -> Scan<'a> {
        Scan { segment, buf: Vec::new(), base: SEGMENT_HEADER_BYTES, at: 0 }
    }

    /// Where in the file the next record would start.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    fn room(&self) -> u64 {
        self.segment.len.saturating_sub(self.offset())
    }

    /// Makes `need` bytes available at the front, as far as the segment has them.
    fn fill(&mut self, need: usize) -> Result<(), Error> {
        if self.buf.len() - self.at >= need {
            return Ok(());
        }
        self.buf.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        let have = self.buf.len();
        let left = self.segment.len.saturating_sub(self.base + have as u64);
        let more = (need.max(READ_BYTES) - have).min(left as usize);
        if more == 0 {
            return Ok(());
        }
        self.buf.resize(have + more, 0);
        let from = self.base + have as u64;
        let read = self.segment.file.read_exact_at(&mut self.buf[have..], from);
        read.map_err(|error| error::io("read log file", &self.segment.path, error))
    }

    /// The record at the front, if it checks out and is the expected one.
    pub(crate) fn next(&mut self, expected: u64) -> Result<Option<(Header, &[u8])>, Error> {
        self.fill(HEADER_BYTES)?;
        let Parsed::Record(header, total) = parse_header(&self.buf[self.at..], self.room()) else {
            return Ok(None);
        };
        if header.seq != expected {
            return Ok(None);
        }
        self.fill(total)?;
        if !verify(&header, &self.buf[self.at..]) {
            return Ok(None);
        }
        let start = self.at + HEADER_BYTES;
        self.at += total;
        Ok(Some((header, &self.buf[start..start + header.len as usize])))
    }

    /// The header at the front if its record checks out, whatever its number; stays there.
    pub(crate) fn peek_any(&mut self) -> Result<Option<Header>, Error> {
        self.fill(HEADER_BYTES)?;
        let Parsed::Record(header, total) = parse_header(&self.buf[self.at..], self.room()) else {
            return Ok(None);
        };
        self.fill(total)?;
        Ok(verify(&header, &self.buf[self.at..]).then_some(header))
    }

    /// Goes on to the next record that checks out and of which `fits` takes the number and the place; the bytes in between that
    /// are not all zero, and the record's header, which stays at the front.
    pub(crate) fn seek(&mut self, fits: impl Fn(u64, u64) -> bool) -> Result<Sought, Error> {
        let mut bad: Option<(u64, u64)> = None;
        while self.room() > 0 {
            let at = self.offset();
            if let Some(header) = self.peek_any()?.filter(|header| fits(header.seq, at)) {
                return Ok((bad.map(|(from, _)| (from, at)), Some(header)));
            }
            if self.skip_word()? {
                bad = Some((bad.map_or(at, |(from, _)| from), self.offset()));
            }
        }
        Ok((bad, None))
    }

    /// Goes on by the eight bytes to which records are aligned; whether any of them is not zero.
    fn skip_word(&mut self) -> Result<bool, Error> {
        self.fill(8)?;
        let end = (self.at + 8).min(self.buf.len());
        let dirty = self.buf[self.at..end].iter().any(|byte| *byte != 0);
        self.at = end;
        Ok(dirty)
    }

    /// End of the last byte from here on that is not zero; none where the rest of the segment is clean.
    pub(crate) fn dirty_until(&self) -> Result<Option<u64>, Error> {
        let (mut at, mut dirty) = (self.offset(), None);
        let mut buf = vec![0; READ_BYTES.min(self.room() as usize)];
        while at < self.segment.len {
            let n = buf.len().min((self.segment.len - at) as usize);
            self.segment
                .file
                .read_exact_at(&mut buf[..n], at)
                .map_err(|e| error::io("read log file", &self.segment.path, e))?;
            if let Some(last) = buf[..n].iter().rposition(|b| *b != 0) {
                dirty = Some(at + last as u64 + 1);
            }
            at += n as u64;
        }
        Ok(dirty)
    }

    /// Looks between the damage and `until` for a record written when `expected` was durable already.
    pub(crate) fn find_proof(&self, expected: u64, until: u64) -> Result<Option<u64>, Error> {
        let mut probe = Scan::new(self.segment);
        probe.base = self.offset() + 8;
        while probe.offset() < until {
            match probe.peek_any()? {
                Some(header) if header.seq > expected && header.synced() >= expected => {
                    return Ok(Some(probe.offset()));
                }
                _ => probe.at += 8,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::log::{Log, Mode};
    use crate::record;

    /// A group of three was being written when the machine stopped; the first did not reach the disk whole.
    #[test]
    fn what_follows_a_torn_record_is_never_read_later() {
        let dir = tempfile::tempdir().unwrap();
        let world = World::real();
        let settings = Settings {
            dir: dir.path().join("wal"),
            segment_bytes: 4096,
            queue_bytes: 4096,
            mode: Mode::Durable,
            known_kinds: &[1],
        };
        let open = || {
            let mut seen = Vec::new();
            let (log, report) = Log::open::<Error>(&world, settings.clone(), &mut |entry| {
                seen.push(entry.payload.to_vec());
                Ok(())
            })
            .unwrap();
            (log, report, seen)
        };
        drop(open());
        let mut group = Vec::new();
        for (seq, payload) in [(1, b"one"), (2, b"two"), (3, b"thr")] {
            record::put(&mut group, 1, seq, &[payload]);
        }
        record::seal(&mut group, 0);
        group[HEADER_BYTES] ^= 1;
        let path = segment::segment_path(&settings.dir, 1);
        world.disk.open(&path).unwrap().write_all_at(&group, SEGMENT_HEADER_BYTES).unwrap();

        let (log, report, seen) = open();
        assert_eq!(seen, Vec::<Vec<u8>>::new());
        assert!(report.healed_bytes > 0);
        let position = log.append(1, b"new").unwrap();
        log.wait(position, Duration::from_secs(20)).unwrap();
        drop(log);
        let (_, _, seen) = open();
        assert_eq!(seen, [b"new".to_vec()]);
    }
}
