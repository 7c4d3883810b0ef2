//! The outside world behind one handle: clock, chance, disk and threads, so that a simulation can own them instead.
//!
//! Everything that reads a clock, draws a random number or touches a file takes a [`World`]. Beside it stand
//! the few tools of running: shutdown, task groups, byte gates, back-off and the pools for blocking work.

mod backoff;
mod behind;
mod chance;
mod clock;
mod disk;
mod files;
mod gate;
mod pool;
mod shutdown;
mod signal;
mod tasks;
mod threads;
mod turn;
mod watch;

pub use backoff::Backoff;
pub use behind::{PIECE, Pace, give_way};
pub use chance::{Chance, OsChance};
pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{Disk, File, RealDisk};
pub use files::raise_file_limit;
pub use gate::{ByteGate, BytePermit, GateError};
pub use pool::{Abandoned, Pool, PoolError};
pub use shutdown::Shutdown;
pub use signal::Signal;
pub use tasks::{TaskError, TaskGroup};
pub use threads::{Step, Steps, Threads};
pub use turn::{Turn, Turns};
pub use watch::FileWatch;

use std::sync::Arc;

/// Clock, chance, disk, and who works beside the callers. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<dyn Chance>,
    pub disk: Arc<dyn Disk>,
    pub threads: Threads,
}

impl World {
    /// This machine.
    pub fn real() -> World {
        World {
            clock: Arc::new(SystemClock),
            chance: Arc::new(OsChance),
            disk: Arc::new(RealDisk),
            threads: Threads::Real,
        }
    }
}
