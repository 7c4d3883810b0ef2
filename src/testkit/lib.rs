//! Fixtures in the field's own notation, and a disk that forgets like a real one. For tests only.

mod authority;
mod chance;
mod mem_disk;
mod notation;
mod ports;
mod replay;
mod s3_server;
mod small_disk;

pub use authority::Authority;
pub use chance::SeededChance;
pub use mem_disk::{MemDisk, SECTOR};
pub use notation::{NotationError, parse_load};
pub use ports::free_port;
pub use replay::Replay;
pub use s3_server::S3Server;
pub use small_disk::SmallDisk;

use std::sync::Arc;

use runtime::{Disk, ManualClock, Threads, World};

/// A world on `disk` whose clock stands at `now_ms` and whose chance is given by `seed`. The clock is returned for
/// moving it.
pub fn world(disk: Arc<dyn Disk>, now_ms: i64, seed: u64) -> (World, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(now_ms));
    let world = World {
        clock: clock.clone(),
        chance: Arc::new(SeededChance::new(seed)),
        disk,
        threads: Threads::Real,
    };
    (world, clock)
}
