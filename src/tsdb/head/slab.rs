//! Pieces of bytes of many sizes in few allocations: chunks, texts and lists of a shard, named by 32 bits.
//!
//! ```text
//! block, 1 MiB  =  64 pages of 16 KiB, each with pieces of one size, or empty
//! name          =  page, 20 bits | piece of the page, 11 bits;  top bit set: a piece of its own, by index
//! ```
//! Sizes go by eight bytes up to 256, then in wider steps, so that little is lost to rounding. A page whose last
//! piece was freed serves any size again, and a block whose last page is empty goes back to the allocator.
//!
//! # Cost
//! A few memory accesses per piece, and an allocation per block. A name finds its bytes by two look-ups. Whoever
//! holds a name is the only one to free it; a name that is used after that finds other bytes, never memory that is
//! not the slab's.

const BLOCK: usize = 1 << 20;
const PAGE: usize = 16 << 10;
const PAGES: usize = BLOCK / PAGE;
const UNIT: usize = 8;
/// Longest piece that shares a page.
const LONGEST: usize = 4096;
const PIECE_BITS: u32 = 11;
const LARGE: u32 = 1 << 31;
/// No page, no piece.
const NONE: u32 = u32::MAX;
const NO_PIECE: u16 = u16::MAX;
/// Blocks without a used page that are kept for what comes next.
const SPARE_BLOCKS: usize = 1;

/// Pieces of bytes.
#[derive(Default)]
pub(crate) struct Slab {
    /// Empty where a block was given back.
    blocks: Vec<Box<[u8]>>,
    pages: Vec<Page>,
    /// Pages in use, by block.
    used: Vec<u8>,
    /// First page with room, by class.
    room: Vec<u32>,
    /// Empty pages of blocks that are there; some may have been taken or given back since.
    empty: Vec<u32>,
    /// Blocks that were given back.
    gone: Vec<u32>,
    large: Vec<Box<[u8]>>,
    large_free: Vec<u32>,
    large_bytes: usize,
}

#[derive(Clone, Copy)]
struct Page {
    /// Size of its pieces; 0 while empty.
    size: u16,
    live: u16,
    /// First free piece: each holds the number of the next in its first two bytes.
    free: u16,
    /// Pieces that were ever used since the page was empty.
    fresh: u16,
    /// Neighbours among the pages of the size that have room.
    before: u32,
    after: u32,
}

const EMPTY: Page = Page { size: 0, live: 0, free: NO_PIECE, fresh: 0, before: NONE, after: NONE };

/// Index of the size for `len` bytes, and that size.
#[inline]
fn class(len: usize) -> (usize, usize) {
    match len {
        0..=256 => {
            let units = len.div_ceil(UNIT).max(1);
            (units - 1, units * UNIT)
        }
        257..=1024 => {
            let steps = (len - 256).div_ceil(32);
            (31 + steps, 256 + steps * 32)
        }
        _ => {
            let steps = (len - 1024).div_ceil(128);
            (55 + steps, 1024 + steps * 128)
        }
    }
}

impl Slab {
    /// A piece of at least `len` bytes, which may hold anything.
    pub(crate) fn alloc(&mut self, len: usize) -> u32 {
        if len > LONGEST {
            return self.alloc_large(len);
        }
        let (class, size) = class(len);
        if self.room.len() <= class {
            self.room.resize(class + 1, NONE);
        }
        let page = match self.room[class] {
            NONE => match self.take_page() {
                Some(page) => {
                    self.pages[page as usize] = Page { size: size as u16, ..EMPTY };
                    self.link(class, page);
                    page
                }
                None => return self.alloc_large(len),
            },
            page => page,
        };
        let at = page as usize;
        let of = &mut self.pages[at];
        let piece = match of.free {
            NO_PIECE => {
                of.fresh += 1;
                of.fresh - 1
            }
            piece => {
                let start = at % PAGES * PAGE + usize::from(piece) * size;
                let next = self.blocks[at / PAGES][start..].first_chunk::<2>();
                of.free = next.map_or(NO_PIECE, |next| u16::from_le_bytes(*next));
                piece
            }
        };
        of.live += 1;
        if of.free == NO_PIECE && (usize::from(of.fresh) + 1) * size > PAGE {
            self.unlink(class, page);
        }
        page << PIECE_BITS | u32::from(piece)
    }

    /// Gives a piece back.
    pub(crate) fn free(&mut self, name: u32) {
        if name & LARGE != 0 {
            let index = name & !LARGE;
            if let Some(large) = self.large.get_mut(index as usize)
                && !large.is_empty()
            {
                self.large_bytes -= large.len();
                *large = Box::default();
                self.large_free.push(index);
            }
            return;
        }
        let (page, piece) = (name >> PIECE_BITS, (name & ((1 << PIECE_BITS) - 1)) as u16);
        let at = page as usize;
        let Some(of) = self.pages.get_mut(at).filter(|of| of.size > 0) else { return };
        let size = usize::from(of.size);
        let (class, _) = class(size);
        let was_full = of.free == NO_PIECE && (usize::from(of.fresh) + 1) * size > PAGE;
        of.live -= 1;
        if of.live == 0 {
            if !was_full {
                self.unlink(class, page);
            }
            self.pages[at] = EMPTY;
            self.give_page(page);
            return;
        }
        let start = at % PAGES * PAGE + usize::from(piece) * size;
        if let Some(next) = self.blocks[at / PAGES][start..].first_chunk_mut::<2>() {
            *next = of.free.to_le_bytes();
        }
        of.free = piece;
        if was_full {
            self.link(class, page);
        }
    }

    /// The bytes of a piece, all of them.
    #[inline]
    pub(crate) fn get(&self, name: u32) -> &[u8] {
        match self.find(name) {
            Some((block, start, size)) => {
                self.blocks.get(block).and_then(|b| b.get(start..start + size)).unwrap_or_default()
            }
            None => self.large.get((name & !LARGE) as usize).map(|l| &**l).unwrap_or_default(),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, name: u32) -> &mut [u8] {
        match self.find(name) {
            Some((block, start, size)) => {
                self.blocks.get_mut(block).and_then(|b| b.get_mut(start..start + size)).unwrap_or_default()
            }
            None => self.large.get_mut((name & !LARGE) as usize).map(|l| &mut **l).unwrap_or_default(),
        }
    }

    /// Bytes taken from the allocator, and bytes of pages that hold pieces.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let blocks: usize = self.blocks.iter().map(|b| b.len()).sum();
        let used: usize = self.used.iter().map(|n| usize::from(*n) * PAGE).sum();
        let tables = self.pages.capacity() * size_of::<Page>() + self.large.capacity() * 16;
        (blocks + tables + self.large_bytes, used + tables + self.large_bytes)
    }

    /// Block, offset and size of a piece that shares a page.
    #[inline]
    fn find(&self, name: u32) -> Option<(usize, usize, usize)> {
        if name & LARGE != 0 {
            return None;
        }
        let (page, piece) = ((name >> PIECE_BITS) as usize, (name & ((1 << PIECE_BITS) - 1)) as usize);
        let size = usize::from(self.pages.get(page)?.size);
        Some((page / PAGES, page % PAGES * PAGE + piece * size, size))
    }

    fn alloc_large(&mut self, len: usize) -> u32 {
        let large = vec![0; len].into_boxed_slice();
        self.large_bytes += len;
        let index = match self.large_free.pop() {
            Some(index) => {
                self.large[index as usize] = large;
                index
            }
            None => {
                self.large.push(large);
                self.large.len() as u32 - 1
            }
        };
        LARGE | index
    }

    /// An empty page; none once all names are taken.
    fn take_page(&mut self) -> Option<u32> {
        loop {
            while let Some(page) = self.empty.pop() {
                let block = page as usize / PAGES;
                // Those of a block that was given back are still listed.
                if self.pages[page as usize].size == 0 && !self.blocks[block].is_empty() {
                    self.used[block] += 1;
                    return Some(page);
                }
            }
            let block = match self.gone.pop() {
                Some(block) => block as usize,
                None if self.pages.len() + PAGES > 1 << (31 - PIECE_BITS) => return None,
                None => {
                    self.blocks.push(Box::default());
                    self.used.push(0);
                    self.pages.resize(self.pages.len() + PAGES, EMPTY);
                    self.blocks.len() - 1
                }
            };
            self.blocks[block] = vec![0; BLOCK].into_boxed_slice();
            let first = (block * PAGES) as u32;
            self.empty.extend((first..first + PAGES as u32).rev());
        }
    }

    fn give_page(&mut self, page: u32) {
        let block = page as usize / PAGES;
        self.used[block] -= 1;
        self.empty.push(page);
        if self.used[block] == 0 && self.empty.len() > (SPARE_BLOCKS + 1) * PAGES {
            self.blocks[block] = Box::default();
            self.gone.push(block as u32);
            self.empty.retain(|page| *page as usize / PAGES != block);
        }
    }

    /// Puts a page first among those of its size that have room.
    fn link(&mut self, class: usize, page: u32) {
        let first = std::mem::replace(&mut self.room[class], page);
        if first != NONE {
            self.pages[first as usize].before = page;
        }
        let of = &mut self.pages[page as usize];
        (of.before, of.after) = (NONE, first);
    }

    fn unlink(&mut self, class: usize, page: u32) {
        let Page { before, after, .. } = self.pages[page as usize];
        match before {
            NONE => self.room[class] = after,
            before => self.pages[before as usize].after = after,
        }
        if after != NONE {
            self.pages[after as usize].before = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_hold_their_lengths_and_have_one_class_each() {
        let mut last = (0, 0);
        for len in 1..=LONGEST {
            let (index, size) = class(len);
            assert!(size >= len && size - len < 128 && size * (PAGE / size) <= PAGE, "{len}");
            assert_eq!(class(size), (index, size));
            assert!(index == last.0 || (index == last.0 + 1 || len == 1) && size > last.1);
            last = (index, size);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn pieces_keep_their_bytes(
            steps in proptest::collection::vec((0u8..3, 0usize..6000, any::<proptest::sample::Index>()), 0..300)
        ) {
            let mut slab = Slab::default();
            let mut model: HashMap<u32, (usize, u8)> = HashMap::new();
            for (n, (step, len, which)) in steps.into_iter().enumerate() {
                // Mostly few sizes, so that pages fill and empty.
                let len = if len % 7 == 0 { len } else { len % 3 * 500 + 1 };
                let names: Vec<u32> = model.keys().copied().collect();
                let fill = n as u8;
                match step {
                    0 | 1 => {
                        let name = slab.alloc(len);
                        prop_assert!(slab.get(name).len() >= len);
                        slab.get_mut(name)[..len].fill(fill);
                        prop_assert!(model.insert(name, (len, fill)).is_none());
                    }
                    _ if names.is_empty() => {}
                    _ => {
                        let name = *which.get(&names);
                        slab.free(name);
                        model.remove(&name);
                    }
                }
                if n % 8 == 0 || n > 290 {
                    for (name, (len, fill)) in &model {
                        prop_assert!(slab.get(*name)[..*len] == vec![*fill; *len]);
                    }
                }
            }
            for name in model.keys() {
                slab.free(*name);
            }
            let (taken, used) = slab.bytes();
            prop_assert!(taken <= (SPARE_BLOCKS + 2) * (BLOCK + PAGES * 16) + (16 << 10) && used < 64 << 10);
        }
    }

    #[test]
    fn pages_serve_any_size_again() {
        let mut slab = Slab::default();
        for size in (96..=512).step_by(32) {
            let all: Vec<u32> = (0..10_000).map(|_| slab.alloc(size)).collect();
            assert!(slab.bytes().0 < 10_000 * size * 11 / 10 + (4 << 20), "{size}");
            all.iter().for_each(|name| slab.free(*name));
            assert!(slab.bytes().0 < 4 << 20);
        }
    }
}
