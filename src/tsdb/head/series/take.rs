//! Offering samples to a series: duplicate, conflict, refused, or taken into the chunk that grows or beside it.

use chunk::{ChunkData, cut, xor};
use model::{Native, Sample, TimeRange, Timestamp, is_stale};
use storage::{Refusal, Verdict};

use super::open::{LINK, PIECE, PIECE_BYTES, lengthen};
use super::sealed::push_sealed;
use super::{NEVER, Series, SeriesMut};
use crate::head::judge::Bounds;
use crate::head::native::Row;

/// Out-of-order samples that are kept as such before they become chunks.
const OUT_OF_ORDER_SAMPLES: usize = 240;

impl SeriesMut<'_> {
    pub(super) fn view(&self) -> Series<'_> {
        Series { hot: self.hot, cold: self.cold, open: self.open, sealed: self.sealed }
    }

    /// Judges a sample and takes it if it may be taken.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        sample: Sample,
        judged_at: Timestamp,
        bounds: &Bounds,
        block_range: i64,
    ) -> Verdict {
        if sample.timestamp <= self.hot.newest {
            if let Some(refusal) = bounds.ahead(sample.timestamp, judged_at) {
                return Verdict::Refused(refusal);
            }
            // What is there already is a success however old it is.
            if let Some(bits) = self.view().value_at(sample.timestamp) {
                let same = bits == sample.value.to_bits();
                if same || !self.give_way(sample.timestamp, judged_at, bounds) {
                    return one_or_the_other(same);
                }
            }
            if let Some(found) = self.view().native_at(sample.timestamp) {
                return one_or_the_other(found.is_stale() && is_stale(sample.value));
            }
        }
        let newest = (self.hot.newest != NEVER).then_some(self.hot.newest);
        if let Err(refusal) = bounds.judge(sample.timestamp, judged_at, newest) {
            return Verdict::Refused(refusal);
        }
        self.take(sample, block_range);
        Verdict::Stored
    }

    /// As [`SeriesMut::offer`], for a histogram that has passed its check.
    pub(crate) fn offer_native(
        &mut self,
        t: Timestamp,
        histogram: &Native,
        judged_at: Timestamp,
        bounds: &Bounds,
        block_range: i64,
    ) -> Verdict {
        if t <= self.hot.newest {
            if let Some(refusal) = bounds.ahead(t, judged_at) {
                return Verdict::Refused(refusal);
            }
            if let Some(found) = self.view().native_at(t) {
                let same = found.is_same(histogram);
                if same || !self.give_way(t, judged_at, bounds) {
                    return one_or_the_other(same);
                }
            }
            if let Some(bits) = self.view().value_at(t) {
                return one_or_the_other(histogram.is_stale() && is_stale(f64::from_bits(bits)));
            }
        }
        let newest = (self.hot.newest != NEVER).then_some(self.hot.newest);
        if let Err(refusal) = bounds.judge(t, judged_at, newest) {
            return Verdict::Refused(refusal);
        }
        match self.take_native(Row { timestamp: t, histogram: histogram.clone() }, block_range) {
            true => Verdict::Stored,
            false => Verdict::Refused(Refusal::InvalidHistogram),
        }
    }

    /// Takes a histogram whose time is not there yet. False where it is none.
    pub(crate) fn take_native(&mut self, row: Row, block_range: i64) -> bool {
        let t = row.timestamp;
        let in_order = t > self.hot.newest;
        if in_order {
            // Chunks of one series do not overlap unless samples came late.
            self.seal(0);
        }
        let mut rare = self.cold.rare.take().unwrap_or_default();
        let (cold, slab) = (&mut *self.cold, &mut *self.sealed);
        let mut sealed = |c: ChunkData| push_sealed(cold, slab, c.range, c.encoding, 0, &c.bytes);
        let taken = match in_order {
            true => rare.natives.take(&row, block_range, &mut sealed),
            false => {
                rare.natives.take_out_of_order(row, block_range, &mut sealed);
                true
            }
        };
        if in_order && taken {
            self.hot.newest = t;
        }
        self.cold.rare = Some(rare);
        self.tidy_rare();
        taken
    }

    /// Notes that counting began anew at `start`, by a sample of zero there, if the sample at `t` that says so will
    /// be taken and nothing as new is there, or was before the series was forgotten. Gives whether it did.
    pub(crate) fn start(
        &mut self,
        start: Timestamp,
        t: Timestamp,
        histogram: Option<&Native>,
        judged_at: Timestamp,
        bounds: &Bounds,
        block_range: i64,
    ) -> Option<Option<Native>> {
        if start == 0 || start >= t || start <= self.hot.newest || histogram.is_some_and(Native::is_stale) {
            return None;
        }
        let newest = (self.hot.newest != NEVER).then_some(self.hot.newest);
        let judged = bounds.judge(start, judged_at, newest).and(bounds.judge(t, judged_at, newest));
        if judged.is_err() || !bounds.is_known_since(start, judged_at) {
            return None;
        }
        let taken = match histogram {
            None => {
                self.take(Sample { timestamp: start, value: 0.0 }, block_range);
                Some(None)
            }
            Some(histogram) => {
                let zero = histogram.zeroed();
                let row = Row { timestamp: start, histogram: zero.clone() };
                self.take_native(row, block_range).then_some(Some(zero))
            }
        };
        if taken.is_some() {
            self.hot.made_up = start as u32;
        }
        taken
    }

    /// Takes out a zero that was made up at `t`, so that a sample which has that time can be taken; whether it did. One
    /// that is being made a block stays.
    fn give_way(&mut self, t: Timestamp, judged_at: Timestamp, bounds: &Bounds) -> bool {
        let is_made_up = self.hot.made_up != 0 && self.hot.made_up == t as u32;
        if !is_made_up
            || bounds.judge(t, judged_at, Some(self.hot.newest)).is_err()
            || self.view().chain().any(|c| c.tag != 0 && c.range.contains(t))
        {
            return false;
        }
        self.remove_made_up(t)
    }

    fn remove_made_up(&mut self, t: Timestamp) -> bool {
        self.hot.made_up = 0;
        self.delete(TimeRange::new(t, t)).is_ok()
    }

    /// Notes that the sample at `t` was made up.
    pub(crate) fn mark_made_up(&mut self, t: Timestamp) {
        self.hot.made_up = t as u32;
    }

    /// What the log says was taken at `t` took the place of a zero that was made up there, if there is one.
    #[inline]
    pub(crate) fn replace_made_up(&mut self, t: Timestamp) {
        if self.hot.made_up != 0 && self.hot.made_up == t as u32 {
            self.remove_made_up(t);
        }
    }

    /// Takes a sample whose time is not there yet.
    #[inline]
    pub(crate) fn take(&mut self, sample: Sample, block_range: i64) {
        let t = sample.timestamp;
        if t <= self.hot.newest {
            self.take_out_of_order(sample, block_range);
            return;
        }
        let hot = &mut *self.hot;
        let count = u16::from(hot.appender.count());
        let step = t.wrapping_sub(hot.newest) as u64;
        let is_over = |left: u32| count == 0 || count >= cut::MOST || step >= u64::from(left);
        if is_over(hot.left) {
            lengthen(hot, t, block_range);
            if is_over(hot.left) {
                self.begin(sample, block_range);
                return;
            }
        }
        let mut appender = hot.appender.unpack(hot.newest);
        let tail = usize::from(hot.tail);
        let bytes = self.open.get_mut(hot.open).get_mut(LINK..).unwrap_or_default();
        match appender.push_tail(bytes, tail, sample) {
            Ok(longer) => hot.tail = longer as u8,
            Err(_) => {
                let aside = appender.push_aside(bytes.get(tail - 1).copied().unwrap_or(0), sample);
                let (here, rest) = aside.bytes().split_at((PIECE_BYTES + 1 - tail).min(aside.bytes().len()));
                if let Some(place) = bytes.get_mut(tail - 1..tail - 1 + here.len()) {
                    place.copy_from_slice(here);
                }
                let name = self.open.alloc(PIECE);
                let piece = self.open.get_mut(name);
                piece[..LINK].copy_from_slice(&hot.open.to_le_bytes());
                piece[LINK..LINK + rest.len()].copy_from_slice(rest);
                (hot.open, hot.tail) = (name, rest.len() as u8);
                hot.pieces += 1;
            }
        }
        // It packs: there are 240 samples at most, less than 2^32 ms apart.
        hot.appender = appender.pack().unwrap_or_default();
        hot.newest = t;
        hot.span += step as u32;
        hot.left -= step as u32;
    }

    /// Seals the open chunk and begins another with a sample that is newer than all.
    #[cold]
    fn begin(&mut self, sample: Sample, block_range: i64) {
        let t = sample.timestamp;
        if let Some(rare) = &mut self.cold.rare {
            // What ends a series of histograms is one of them, as Prometheus has it.
            if is_stale(sample.value)
                && let Some(histogram) = rare.natives.stale_marker()
            {
                self.take_native(Row { timestamp: t, histogram }, block_range);
                return;
            }
            self.seal_natives(|natives, sealed| natives.seal(&mut |c| sealed(c)), 0);
        }
        self.seal(0);
        let hot = &mut *self.hot;
        hot.open = self.open.alloc(PIECE);
        let mut appender = xor::Appender::default();
        // A first sample fits and its state packs.
        let bytes = self.open.get_mut(hot.open).get_mut(LINK..).unwrap_or_default();
        hot.tail = appender.push_tail(bytes, 0, sample).unwrap_or(0) as u8;
        hot.pieces = 1;
        hot.appender = appender.pack().unwrap_or_default();
        hot.newest = t;
        hot.span = 0;
        hot.left = 0;
    }

    fn take_out_of_order(&mut self, sample: Sample, block_range: i64) {
        let rare = self.cold.rare.get_or_insert_default();
        let buffer = &mut rare.out_of_order;
        let at = buffer.partition_point(|s| s.timestamp < sample.timestamp);
        buffer.insert(at, sample);
        if buffer.len() >= OUT_OF_ORDER_SAMPLES {
            let all = std::mem::take(buffer);
            self.tidy_rare();
            self.seal_out_of_order(&all, block_range, 0);
        }
    }

    pub(super) fn tidy_rare(&mut self) {
        if self.cold.rare.as_ref().is_some_and(|rare| rare.is_empty()) {
            self.cold.rare = None;
        }
    }
}

/// The verdict on a sample where there is one already.
fn one_or_the_other(same: bool) -> Verdict {
    if same { Verdict::Duplicate } else { Verdict::Refused(Refusal::Conflict) }
}
