//! A request: a share of a batch, its series by reference or by labels, its samples by columns.

use model::{Labels, TenantId, Timestamp, placement_hash};
use storage::{HistogramRow, SeriesHandle, WriteBatch};
use wire::remote_write::{Limits, PeerEncoder, PeerWrite, decode_peer};

use super::FrameError;
use super::bytes::{Put, Read};
use super::columns::{ReadSteps, ReadValues, Steps, put_values};
use super::frame::{self, REQUEST};

/// Each row has one float and nothing else: there is no column of counts.
const ONE_FLOAT: u64 = 1;
/// Floats say when counting started.
const STARTS: u64 = 2;
/// Some rows have histograms or exemplars.
const OTHERS: u64 = 4;
/// The request names the ring epoch that it was placed by.
const RING_EPOCH: u64 = 8;
const KNOWN_FLAGS: u64 = ONE_FLOAT | STARTS | OTHERS | RING_EPOCH;

/// Kinds of runs of rows, in the two low bits of their heads.
const RUN: u64 = 0;
const LIST: u64 = 1;
const DEFINE: u64 = 2;
const BARE: u64 = 3;

/// References in a row from which on they are a run.
const LEAST_RUN: usize = 3;

/// How a row says which series it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowRef {
    /// By the number that the receiver confirmed.
    Known(u32),
    /// By labels, which are to have this number from now on.
    Define(u32),
    /// By labels alone.
    Bare,
}

/// What a request says before its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Names the request in its reply; never used twice on a stream.
    pub id: u64,
    /// The dictionary that the references belong to.
    pub epoch: u32,
    /// After which nobody waits for the reply.
    pub deadline_ms: u32,
    /// From 1: which copy this is; 0: not replicated yet.
    pub replica: u32,
    /// When the door let it in, ms.
    pub judged_at: Timestamp,
    pub tenant: TenantId,
    /// The ring epoch that it was placed by; 0: none.
    pub ring_epoch: u64,
}

/// Writes requests; keeps its buffers.
#[derive(Default)]
pub(crate) struct Encoder {
    section: Vec<u8>,
    labels: Vec<u8>,
    steps: Steps,
}

impl Encoder {
    /// Writes the rows of a batch, each as its reference says, to `out`, which is cleared.
    pub(crate) fn encode(
        &mut self,
        head: &Head,
        batch: &WriteBatch,
        rows: &[u32],
        refs: &[RowRef],
        out: &mut Vec<u8>,
    ) {
        let series = || rows.iter().filter_map(|row| batch.series().get(*row as usize));
        let samples = || series().flat_map(|series| series.samples());
        let only_floats = batch.verdicts() == batch.samples().len();
        let one_float = only_floats && series().all(|series| series.samples().len() == 1);
        let has_others = !only_floats
            && series().any(|s| !batch.histograms_of(s).is_empty() || !batch.exemplars_of(s).is_empty());
        let flag = |on: bool, flag: u64| if on { flag } else { 0 };
        frame::begin(REQUEST, out);
        out.put_number(head.id);
        let flags = flag(one_float, ONE_FLOAT) | flag(batch.has_starts(), STARTS) | flag(has_others, OTHERS);
        out.put_number(flags | flag(head.ring_epoch > 0, RING_EPOCH));
        for number in [head.epoch, head.deadline_ms, head.replica] {
            out.put_number(number.into());
        }
        out.put_signed(head.judged_at);
        out.put_counted(head.tenant.as_str().as_bytes());
        if head.ring_epoch > 0 {
            out.put_number(head.ring_epoch);
        }
        out.put_number(rows.len() as u64);
        let section = &mut self.section;
        section.clear();
        put_refs(refs, section);
        out.put_counted(section);
        section.clear();
        for (row, _) in rows.iter().zip(refs).filter(|(_, name)| !matches!(name, RowRef::Known(_))) {
            // A row that has none is refused by the receiver.
            batch.labels_into(*row, &mut self.labels);
            section.put_counted(&self.labels);
        }
        out.put_counted(section);
        if !one_float {
            section.clear();
            series().for_each(|series| section.put_number(series.samples().len() as u64));
            out.put_counted(section);
        }
        section.clear();
        self.steps.clear(head.judged_at);
        samples().for_each(|at| self.steps.push(batch.samples()[at].timestamp));
        self.steps.write(section);
        out.put_counted(section);
        section.clear();
        put_values(samples().map(|at| batch.samples()[at].value), section);
        out.put_counted(section);
        if batch.has_starts() {
            section.clear();
            self.steps.clear(0);
            samples().for_each(|at| self.steps.push(batch.start_of(at)));
            self.steps.write(section);
            out.put_counted(section);
        }
        if has_others {
            section.clear();
            put_others(batch, rows, section);
            out.put_counted(section);
        }
        frame::end(out);
    }
}

fn put_refs(refs: &[RowRef], out: &mut Vec<u8>) {
    let mut expected = 0u32;
    let step = |to: u32, from: u32| i64::from(to) - i64::from(from);
    let mut rest = refs;
    while let Some(first) = rest.first() {
        match *first {
            RowRef::Bare => {
                let many = rest.iter().take_while(|one| **one == RowRef::Bare).count();
                out.put_number((many as u64) << 2 | BARE);
                rest = &rest[many..];
            }
            RowRef::Define(slot) => {
                let next =
                    |(at, one): &(usize, &RowRef)| **one == RowRef::Define(slot.wrapping_add(*at as u32));
                let many = rest.iter().enumerate().take_while(next).count();
                out.put_number((many as u64) << 2 | DEFINE);
                out.put_signed(step(slot, expected));
                expected = slot.wrapping_add(many as u32);
                rest = &rest[many..];
            }
            RowRef::Known(slot) => {
                let many = consecutive(rest, slot);
                if many >= LEAST_RUN || many == rest.len() {
                    out.put_number((many as u64) << 2 | RUN);
                    out.put_signed(step(slot, expected));
                    expected = slot.wrapping_add(many as u32);
                    rest = &rest[many..];
                    continue;
                }
                let ends = |at: usize| match rest[at] {
                    RowRef::Known(slot) => consecutive(&rest[at..], slot) >= LEAST_RUN,
                    _ => true,
                };
                let many = (1..rest.len()).find(|at| ends(*at)).unwrap_or(rest.len());
                out.put_number((many as u64) << 2 | LIST);
                for one in &rest[..many] {
                    if let RowRef::Known(slot) = one {
                        out.put_signed(step(*slot, expected));
                        expected = slot.wrapping_add(1);
                    }
                }
                rest = &rest[many..];
            }
        }
    }
}

/// How many known references follow one another from `first` on.
fn consecutive(refs: &[RowRef], first: u32) -> usize {
    let next = |(at, one): &(usize, &RowRef)| **one == RowRef::Known(first.wrapping_add(*at as u32));
    refs.iter().enumerate().take_while(next).count()
}

/// Rows that have them, and a write request of these rows with their histograms and exemplars alone.
fn put_others(batch: &WriteBatch, rows: &[u32], out: &mut Vec<u8>) {
    let mut encoder = PeerEncoder::default();
    let mut places = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let Some(series) = batch.series().get(*row as usize) else { continue };
        let (histograms, exemplars) = (batch.histograms_of(series), batch.exemplars_of(series));
        if histograms.is_empty() && exemplars.is_empty() {
            continue;
        }
        places.push(place);
        encoder.begin(&[]);
        for row in &batch.histograms()[histograms] {
            encoder.histogram(row.timestamp, row.start, &row.histogram);
        }
        for row in &batch.exemplars()[exemplars] {
            encoder.exemplar(row.timestamp, row.value, batch.exemplar_labels(row));
        }
        encoder.end();
    }
    out.put_number(places.len() as u64);
    places.iter().for_each(|place| out.put_number(*place as u64));
    out.extend_from_slice(&encoder.finish("", 0, false, None));
}

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub head: Head,
    /// Its rows are the request's; rows whose references are not known have neither labels nor a handle that finds anything.
    pub batch: WriteBatch,
    /// Rows by what is to be done with them.
    pub rows: Rows,
}

#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Rows that can be stored.
    pub known: Vec<u32>,
    /// Rows whose references mean nothing here.
    pub unknown: Vec<u32>,
    /// Rows that are to have a number from now on.
    pub defined: Vec<(u32, u32)>,
}

/// Reads requests; keeps its buffers.
#[derive(Default)]
pub(crate) struct Decoder {
    others: PeerWrite,
    labels: Vec<u8>,
    tenant: Option<TenantId>,
    spare: Vec<WriteBatch>,
}

/// What a reference means: hash and handle of its series.
pub(crate) type Meaning = (u64, SeriesHandle);

/// The id of a request, whatever else is wrong with it.
pub(crate) fn id_of(mut body: Read<'_>) -> Option<u64> {
    body.number().ok()
}

/// The epoch of a request.
pub(crate) fn epoch_of(mut body: Read<'_>) -> Result<u32, FrameError> {
    body.number()?;
    body.number()?;
    body.short()
}

/// Batches kept for reuse.
const SPARE: usize = 8;

impl Decoder {
    /// Gives a batch back for reuse.
    pub(crate) fn reuse(&mut self, mut batch: WriteBatch) {
        if self.spare.len() < SPARE {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// Reads the body of a request. `meaning` is asked for references of the request's epoch.
    pub(crate) fn decode(
        &mut self,
        mut read: Read<'_>,
        limits: &Limits,
        meaning: impl Fn(u32, u32) -> Option<Meaning>,
    ) -> Result<Incoming, FrameError> {
        let id = read.number()?;
        let flags = read.number()?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(FrameError::Malformed("flags of a later version"));
        }
        let (epoch, deadline_ms, replica) = (read.short()?, read.short()?, read.short()?);
        let judged_at = read.signed()?;
        let tenant = self.tenant(read.counted()?)?;
        let ring_epoch = if flags & RING_EPOCH != 0 { read.number()? } else { 0 };
        let count = read.number()?;
        if count > limits.max_series as u64 {
            return Err(FrameError::Limit("series"));
        }
        let count = count as usize;
        let mut refs = Refs { read: Read(read.counted()?), expected: 0, left: 0, kind: RUN };
        let mut labels = Read(read.counted()?);
        let counts = if flags & ONE_FLOAT == 0 { Some(read.counted()?) } else { None };
        let mut times = ReadSteps::new(read.counted()?, judged_at);
        let values = read.counted()?;
        let total = match counts {
            None => count as u64,
            Some(counts) => total(counts, count)?,
        };
        // Every value takes half a byte at least, so that a short frame cannot ask for much memory.
        if total > 2 * values.len() as u64 {
            return Err(FrameError::Short);
        }
        let mut values = ReadValues::new(values, total as usize)?;
        let mut counts = counts.map(Read);
        let mut starts = if flags & STARTS != 0 { Some(ReadSteps::new(read.counted()?, 0)) } else { None };
        let mut others = Others::default();
        let others_body = if flags & OTHERS != 0 { read.counted()? } else { &[] };
        if flags & OTHERS != 0 {
            others = Others::read(others_body, count, limits, &mut self.others)?;
        }
        if !read.is_done() {
            return Err(FrameError::Malformed("bytes behind its end"));
        }
        let mut batch = self.spare.pop().unwrap_or_default();
        let mut rows = Rows::default();
        for row in 0..count as u32 {
            let floats = match &mut counts {
                None => 1,
                Some(counts) => counts.number()?,
            };
            for _ in 0..floats {
                let (timestamp, value) = (times.next()?, values.next()?);
                batch.open().push(model::Sample { timestamp, value });
                if let Some(starts) = &mut starts {
                    batch.push_start(starts.next()?);
                }
            }
            if others.places.get(others.at) == Some(&row) {
                others.take(&self.others, others_body, &mut self.labels, &mut batch)?;
            }
            match refs.next()? {
                RowRef::Known(slot) => match meaning(epoch, slot) {
                    Some((hash, handle)) => {
                        batch.close(&[], hash, Some(handle));
                        rows.known.push(row);
                    }
                    None => {
                        batch.close(&[], 0, Some(SeriesHandle::NOWHERE));
                        rows.unknown.push(row);
                    }
                },
                by_labels => {
                    let labels = labels.counted()?;
                    if labels.is_empty() || Labels::check(labels).is_err() {
                        return Err(FrameError::Malformed("labels that are none"));
                    }
                    batch.close(labels, placement_hash(tenant.as_str(), labels), None);
                    rows.known.push(row);
                    if let RowRef::Define(slot) = by_labels {
                        rows.defined.push((row, slot));
                    }
                }
            }
        }
        if !(refs.is_done() && labels.is_done() && times.is_done() && values.is_done()) {
            return Err(FrameError::Malformed("columns longer than its rows"));
        }
        let head = Head { id, epoch, deadline_ms, replica, judged_at, tenant, ring_epoch };
        Ok(Incoming { head, batch, rows })
    }

    /// Nearly always that of the request before.
    fn tenant(&mut self, name: &[u8]) -> Result<TenantId, FrameError> {
        if let Some(tenant) = self.tenant.as_ref().filter(|tenant| tenant.as_str().as_bytes() == name) {
            return Ok(tenant.clone());
        }
        let name = std::str::from_utf8(name).ok().and_then(|name| TenantId::new(name).ok());
        let tenant = name.ok_or(FrameError::Malformed("a tenant that is none"))?;
        Ok(self.tenant.insert(tenant).clone())
    }
}

/// Sum of a column of `rows` counts.
fn total(counts: &[u8], rows: usize) -> Result<u64, FrameError> {
    let (mut read, mut total) = (Read(counts), 0u64);
    for _ in 0..rows {
        total = total.saturating_add(read.number()?);
    }
    if read.is_done() { Ok(total) } else { Err(FrameError::Malformed("more counts than rows")) }
}

struct Refs<'a> {
    read: Read<'a>,
    expected: u32,
    left: u64,
    kind: u64,
}

impl Refs<'_> {
    #[inline]
    fn next(&mut self) -> Result<RowRef, FrameError> {
        if self.left == 0 {
            let head = self.read.number()?;
            (self.left, self.kind) = (head >> 2, head & 3);
            if self.left == 0 {
                return Err(FrameError::Malformed("an empty run of rows"));
            }
            if self.kind == RUN || self.kind == DEFINE {
                self.step()?;
            }
        }
        self.left -= 1;
        if self.kind == BARE {
            return Ok(RowRef::Bare);
        }
        if self.kind == LIST {
            self.step()?;
        }
        let slot = self.expected;
        self.expected = slot.wrapping_add(1);
        Ok(if self.kind == DEFINE { RowRef::Define(slot) } else { RowRef::Known(slot) })
    }

    fn step(&mut self) -> Result<(), FrameError> {
        let at = i64::from(self.expected).checked_add(self.read.signed()?);
        let at = at.and_then(|at| u32::try_from(at).ok());
        self.expected = at.ok_or(FrameError::Malformed("a reference of more than 32 bits"))?;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.left == 0 && self.read.is_done()
    }
}

/// Histograms and exemplars, read beside the rows.
#[derive(Default)]
struct Others {
    /// Rows that have some, ascending.
    places: Vec<u32>,
    at: usize,
    /// Where their write request begins.
    body: usize,
}

impl Others {
    fn read(
        section: &[u8],
        rows: usize,
        limits: &Limits,
        into: &mut PeerWrite,
    ) -> Result<Others, FrameError> {
        let mut read = Read(section);
        let count = read.number()?;
        if count > rows as u64 {
            return Err(FrameError::Malformed("more histograms' rows than rows"));
        }
        let mut places = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let place = read.short()?;
            if place as usize >= rows || places.last().is_some_and(|last| *last >= place) {
                return Err(FrameError::Malformed("histograms' rows that do not ascend"));
            }
            places.push(place);
        }
        decode_peer(read.0, limits, into)
            .map_err(|_| FrameError::Malformed("histograms that do not decode"))?;
        if into.columns.series().len() != places.len() {
            return Err(FrameError::Malformed("histograms for other rows"));
        }
        Ok(Others { places, at: 0, body: section.len() - read.0.len() })
    }

    /// Puts what the next place has into the series that is open.
    fn take(
        &mut self,
        from: &PeerWrite,
        section: &[u8],
        labels: &mut Vec<u8>,
        batch: &mut WriteBatch,
    ) -> Result<(), FrameError> {
        let columns = &from.columns;
        let series = columns.series().get(self.at).ok_or(FrameError::Short)?;
        self.at += 1;
        for row in columns.histograms_of(series) {
            let Ok(histogram) = row.histogram.clone() else {
                return Err(FrameError::Malformed("a histogram that contradicts itself"));
            };
            batch.push_histogram(HistogramRow {
                timestamp: row.timestamp,
                start: row.start_timestamp,
                histogram,
            });
        }
        for exemplar in columns.exemplars_of(series) {
            let body = section.get(self.body..).ok_or(FrameError::Short)?;
            if columns.exemplar_canonical(exemplar, body, labels).is_err() {
                return Err(FrameError::Malformed("an exemplar that is none"));
            }
            batch.push_exemplar(exemplar.timestamp, exemplar.value, labels);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
