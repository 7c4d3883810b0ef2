//! Taking samples out of a series again: frozen for a block and dropped, or deleted.

use bytes::Bytes;
use model::{Sample, TimeRange, Timestamp};
use storage::ChunkData;

use super::SeriesMut;
use super::open::open_range;
use super::sealed::{REMEMBERED, Sealed, push_sealed};
use crate::Error;
use crate::blocks::from_block;

impl SeriesMut<'_> {
    /// Takes out all samples in `range`, also remembered ones; whether there were any.
    pub(crate) fn delete(&mut self, range: TimeRange) -> Result<bool, Error> {
        if open_range(self.hot).is_some_and(|open| open.overlaps(&range)) {
            self.seal(0);
        }
        let mut any = false;
        if let Some(rare) = &mut self.cold.rare {
            let before = rare.out_of_order.len();
            rare.out_of_order.retain(|s| !range.contains(s.timestamp));
            any = rare.out_of_order.len() < before;
            any |= rare.natives.delete(range);
        }
        // What is left of the open chunk is found among the sealed ones.
        self.seal_natives(
            |natives, sealed| {
                if natives.overlaps(range) {
                    natives.seal(&mut |c| sealed(c));
                }
            },
            0,
        );
        self.tidy_rare();
        let in_part = |c: &Sealed<'_>| c.range.overlaps(&range);
        let touched: Vec<(ChunkData, u32)> = self
            .view()
            .chain()
            .filter(in_part)
            .map(|c| (c.data(Bytes::copy_from_slice(c.bytes)), c.tag))
            .collect();
        let mut rest = Vec::with_capacity(touched.len());
        for (chunk, tag) in &touched {
            // One that does not decode goes whole only if all of it is to go.
            let whole = range.start <= chunk.range.start && chunk.range.end <= range.end;
            if !whole {
                let left = block::without(chunk, &[range]).map_err(from_block)?;
                rest.extend(left.into_iter().map(|chunk| (chunk, *tag)));
            }
        }
        self.retain_sealed(|c| !in_part(c));
        for (chunk, tag) in rest {
            push_sealed(self.cold, self.sealed, chunk.range, chunk.encoding, tag, &chunk.bytes);
        }
        Ok(any || !touched.is_empty())
    }

    /// Seals all samples of `window` and marks them with `tag`, taking over those of other marks; later samples
    /// go into new chunks.
    pub(crate) fn freeze(&mut self, window: TimeRange, block_range: i64, tag: u32) -> bool {
        if open_range(self.hot).is_some_and(|open| window.contains(open.start)) {
            self.seal(tag);
        }
        if let Some(rare) = &mut self.cold.rare {
            let buffer = &mut rare.out_of_order;
            let start = buffer.partition_point(|s| s.timestamp < window.start);
            let end = buffer.partition_point(|s| s.timestamp <= window.end);
            let taken: Vec<Sample> = buffer.drain(start..end).collect();
            self.seal_out_of_order(&taken, block_range, tag);
            self.seal_natives(
                |natives, sealed| natives.seal_window(window, block_range, &mut |c| sealed(c)),
                tag,
            );
        }
        self.mark(tag, |c| c.tag != REMEMBERED && window.contains(c.range.start))
    }

    /// Forgets a freeze: its chunks are ordinary ones again.
    pub(crate) fn thaw(&mut self, tag: u32) {
        self.mark(0, |c| c.tag == tag);
    }

    /// Drops the chunks of a freeze; with `remember` their values are still known, until
    /// [`SeriesMut::forget_cut`].
    pub(crate) fn drop_frozen(&mut self, tag: u32, remember: bool) {
        match remember {
            true => {
                self.mark(REMEMBERED, |c| c.tag == tag);
            }
            false => self.retain_sealed(|c| c.tag != tag),
        }
    }

    /// Forgets the values of cut samples before `edge`, the start of a window.
    pub(crate) fn forget_cut(&mut self, edge: Timestamp) {
        self.retain_sealed(|c| c.tag != REMEMBERED || c.range.start >= edge);
    }

    /// Notes that its newest sample, in no chunk here, is no older than `newest`.
    pub(crate) fn raise_newest(&mut self, newest: Timestamp) {
        if newest > self.hot.newest {
            // The open chunk's last time is its newest: what comes next begins another.
            self.seal(0);
            self.hot.newest = newest;
        }
    }
}
