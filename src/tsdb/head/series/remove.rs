//! Taking samples out of a series again: frozen for a block and dropped, or deleted.

use bytes::Bytes;
use model::{Sample, TimeRange, Timestamp};
use storage::ChunkData;

use super::open::open_range;
use super::sealed::{REMEMBERED, push_sealed};
use super::{Series, SeriesMut};
use crate::Error;
use crate::blocks::from_block;

impl Series<'_> {
    /// Whether any sealed chunk overlaps `range`, and what those that do hold outside of it, with their tags.
    fn without(&self, range: TimeRange) -> Result<(bool, Vec<(ChunkData, u32)>), Error> {
        let (mut touched, mut rest) = (false, Vec::new());
        for c in self.chain().filter(|c| c.range.overlaps(&range)) {
            touched = true;
            // One that does not decode goes whole only if all of it is to go.
            let whole = range.start <= c.range.start && c.range.end <= range.end;
            if !whole {
                let chunk = c.data(Bytes::copy_from_slice(c.bytes));
                let left = block::without(&chunk, &[range]).map_err(from_block)?;
                rest.extend(left.into_iter().map(|chunk| (chunk, c.tag)));
            }
        }
        Ok((touched, rest))
    }
}

impl SeriesMut<'_> {
    /// Takes out all samples in `range`, also remembered ones; whether there were any. On an error nothing is.
    pub(crate) fn delete(&mut self, range: TimeRange) -> Result<bool, Error> {
        // What is left of open chunks is found among the sealed ones.
        if open_range(self.hot).is_some_and(|open| open.overlaps(&range)) {
            self.seal(0);
        }
        self.seal_natives(
            |natives, sealed| {
                if natives.overlaps(range) {
                    natives.seal(&mut |c| sealed(c));
                }
            },
            0,
        );
        // All that can fail comes before the first change.
        let (touched, rest) = self.view().without(range)?;
        let mut any = touched;
        if let Some(rare) = &mut self.cold.rare {
            let before = rare.out_of_order.len();
            rare.out_of_order.retain(|s| !range.contains(s.timestamp));
            any |= rare.out_of_order.len() < before;
            any |= rare.natives.delete(range);
        }
        self.tidy_rare();
        if touched {
            self.retain_sealed(|c| !c.range.overlaps(&range));
        }
        for (chunk, tag) in rest {
            push_sealed(self.cold, self.sealed, chunk.range, chunk.encoding, tag, &chunk.bytes);
        }
        Ok(any)
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
