//! What of this node's data cannot be read from the bucket yet, in figures.
//!
//! Blocks are looked for once: in the bucket, by themselves or in what a compactor has made of them, and then at its readers.
//! One that the bucket has lost is uploaded again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use block::BlockId;
use parking_lot::Mutex;
use tsdb::{LocalBlock, Tsdb};

use crate::Error;
use crate::epochs::readers::Readers;
use crate::ship::{Round, Ship};

/// Cuts, ships, and looks whether everything is readable.
pub struct Drain {
    ship: Arc<Ship>,
    readers: Readers,
    /// Local blocks that all readers of the bucket have shown.
    readable: Mutex<BTreeSet<BlockId>>,
}

/// What is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Samples of the head.
    pub samples: u64,
    /// Blocks that are not in the bucket.
    pub unshipped: usize,
    /// Blocks in the bucket that not every reader has found.
    pub unseen: usize,
    /// What went wrong last.
    pub trouble: Option<String>,
}

impl Left {
    pub fn is_nothing(&self) -> bool {
        self.samples == 0 && self.blocks() == 0
    }

    /// Blocks that are needed here.
    pub fn blocks(&self) -> usize {
        self.unshipped + self.unseen
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left { samples, unshipped, unseen, trouble } = self;
        write!(
            f,
            "{samples} samples to be cut, {unshipped} blocks to be uploaded, {unseen} uploaded blocks that not every reader \
             of the bucket has found"
        )?;
        match trouble {
            Some(trouble) => write!(f, " ({trouble})"),
            None => Ok(()),
        }
    }
}

impl Drain {
    pub fn new(ship: Arc<Ship>, readers: Readers) -> Drain {
        Drain { ship, readers, readable: Mutex::default() }
    }

    pub fn has_bucket(&self) -> bool {
        self.ship.has_bucket()
    }

    /// Cuts all that the head has, ships it, and says what is left then.
    pub async fn push(&self, engine: &Arc<Tsdb>) -> Result<Left, Error> {
        let round = self.ship.cut_and_ship(engine, true).await?;
        self.after(engine, round).await
    }

    /// As [`Drain::push`], without the cut.
    pub async fn upload(&self, engine: &Arc<Tsdb>) -> Result<Left, Error> {
        let round = self.ship.upload(engine).await;
        self.after(engine, round).await
    }

    async fn after(&self, engine: &Arc<Tsdb>, round: Round) -> Result<Left, Error> {
        let mut left = self.look(engine).await?;
        left.trouble = left.trouble.or(round.left.into_iter().next());
        Ok(left)
    }

    /// What is left.
    pub async fn look(&self, engine: &Arc<Tsdb>) -> Result<Left, Error> {
        let head = engine.head_stats();
        let (shipped, unshipped) = self.ship.by_shipped(engine);
        let mut left = Left { samples: head.samples, unshipped, ..Left::default() };
        let new: Vec<LocalBlock> = {
            let mut readable = self.readable.lock();
            let there: BTreeSet<BlockId> = shipped.iter().map(|block| block.id).collect();
            readable.retain(|id| there.contains(id));
            shipped.into_iter().filter(|block| !readable.contains(&block.id)).collect()
        };
        if new.is_empty() {
            return Ok(left);
        }
        let many = new.len();
        let found = match self.ship.find(new.clone()).await {
            Ok(found) => found,
            Err(error) => {
                left.unseen = many;
                left.trouble = Some(error.to_string());
                return Ok(left);
            }
        };
        for block in new {
            let Some(at) = found.get(&block.id) else {
                // Lost there: it is uploaded again.
                left.unshipped += 1;
                continue;
            };
            let shown = match at {
                // Given up on purpose.
                None => Ok(true),
                Some(id) => self.readers.show(*id, &block.meta).await,
            };
            match shown {
                Ok(true) => drop(self.readable.lock().insert(block.id)),
                Ok(false) => left.unseen += 1,
                Err(trouble) => {
                    left.unseen += 1;
                    left.trouble = Some(trouble);
                }
            }
        }
        Ok(left)
    }
}
