//! Where a batch came from: the plain body, kept while copies of the batch are under way, so that labels are written
//! only for those who ask for them.
//!
//! A known series goes to its replicas by name, and nobody looks at its labels; a peer that has no name for it, an
//! engine that has forgotten it, or a single call wants them, rarely.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use identity::{Identities, Met};
use model::Timestamp;
use parking_lot::Mutex;
use relabel::Rules;
use storage::{RowName, RowSource, SeriesHandle};
use wire::remote_write::{DecodedV1, DecodedV2, Limits};

use crate::decode::{Decoded, Reading};
use crate::resolve::write_labels;
use crate::resolve_v2::{decoded_again, write_labels_v2};

/// Bodies of this size are used again, so many of them.
const SPARE_BYTES: usize = 4 << 20;
const SPARES: usize = 32;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Room for a body, from a batch that nobody needs any more.
pub fn spare() -> Option<Vec<u8>> {
    SPARE.lock().pop()
}

thread_local! {
    static ROOM: RefCell<DecodedV1> = RefCell::default();
}

/// The source of a batch's rows.
pub struct Origin {
    /// Whose series they are, to the identities.
    space: String,
    strip: Option<String>,
    limits: Limits,
    rules: Arc<Rules>,
    identities: Arc<Identities>,
    now: Timestamp,
    kept: OnceLock<Kept>,
}

struct Kept {
    plain: Vec<u8>,
    regions: Vec<Range<u32>>,
    met: Vec<Met>,
    /// Of 2.0: the body once more, for the first who asks.
    again: Option<OnceLock<DecodedV2>>,
}

impl Origin {
    /// Knows nothing before [`Origin::keep`].
    pub fn new(
        space: &str,
        strip: Option<&str>,
        limits: Limits,
        rules: &Arc<Rules>,
        identities: &Arc<Identities>,
        now: Timestamp,
    ) -> Arc<Origin> {
        let (rules, identities) = (Arc::clone(rules), Arc::clone(identities));
        let (space, strip) = (space.to_owned(), strip.map(str::to_owned));
        Arc::new(Origin { space, strip, limits, rules, identities, now, kept: OnceLock::new() })
    }

    /// Takes the body over, and of each row of the batch where its labels lie in it and who it is.
    pub fn keep(&self, plain: Vec<u8>, decoded: &mut Decoded) {
        let (regions, met) = (std::mem::take(&mut decoded.regions), std::mem::take(&mut decoded.met));
        let again = decoded.by_symbols.then(OnceLock::new);
        // There is one body for one batch.
        let _ = self.kept.set(Kept { plain, regions, met, again });
    }
}

impl RowSource for Origin {
    fn name(&self, row: u32) -> Option<RowName> {
        let met = self.kept.get()?.met.get(row as usize)?;
        met.id.map(|id| RowName { id: id.number(), check: met.key.check() })
    }

    fn labels(&self, row: u32, out: &mut Vec<u8>) -> bool {
        let Some(Kept { plain, regions, again, .. }) = self.kept.get() else { return false };
        let reading = Reading { limits: &self.limits, strip: self.strip.as_deref(), rules: &self.rules };
        if let Some(again) = again {
            let decoded = again.get_or_init(|| decoded_again(plain, &self.limits));
            let series = regions.get(row as usize).map(|region| region.start as usize);
            return series.is_some_and(|series| write_labels_v2(decoded, series, plain, reading, out));
        }
        let region = regions.get(row as usize).map(|r| r.start as usize..r.end as usize);
        let Some(region) = region.and_then(|region| plain.get(region)) else { return false };
        ROOM.with_borrow_mut(|room| write_labels(region, reading, room, out))
    }

    fn bytes(&self) -> usize {
        self.kept.get().map_or(0, |kept| {
            kept.plain.len()
                + kept.met.capacity() * size_of::<Met>()
                + kept.regions.capacity() * size_of::<Range<u32>>()
        })
    }

    fn learned(&self, handles: &[(u32, SeriesHandle)]) {
        if let Some(kept) = self.kept.get() {
            let mut met = kept.met.clone();
            self.identities.learn(&self.space, &mut met, handles, false, self.now);
        }
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("space", &self.space).finish_non_exhaustive()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.plain.capacity() <= SPARE_BYTES {
            let mut spare = SPARE.lock();
            if spare.len() < SPARES {
                spare.push(std::mem::take(&mut self.plain));
            }
        }
    }
}
