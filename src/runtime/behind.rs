//! Work that nobody waits for, done so that nobody feels it: a thread that gives way, writes that leave the disk to others.
//!
//! One of the few modules that allow `unsafe`. The argument: rustix has no `sched_setattr`, so it is called as a bare system
//! call. It concerns the calling thread only, reads one structure of this stack frame whose size it is told, and keeps nothing.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use crate::World;

/// A tenth of the weight of an ordinary thread: on a machine whose cores are all busy the work goes on, slowly.
const NICE: i32 = 10;
/// How long the thread may go on when another wakes up, instead of 3 to 4 ms. Weighed with [`NICE`] it is due later than any
/// ordinary thread, so that whoever wakes up goes first.
const SLICE: Duration = Duration::from_micros(400);
/// A disk that is this slow has other troubles than us.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// From now on the calling thread gives way to all others. Kernels before 6.12 know no slices and take the weight alone.
pub fn give_way() -> io::Result<()> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_policy = libc::SCHED_OTHER as u32;
    attributes.sched_nice = NICE;
    attributes.sched_runtime = SLICE.as_nanos() as u64;
    // SAFETY: a pointer to a structure that lives until the call returns; 0 is the calling thread, and no flags.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Rests as long as the disk has just worked, so that at most half of its time goes into writes that nobody waits for: a log
/// beside them waits for one piece, never for a queue of them.
#[derive(Debug, Default)]
pub struct Pace {
    worked: Duration,
}

/// How many bytes are given to the disk before [`Pace`] rests.
pub const PIECE: usize = 256 << 10;

impl Pace {
    /// Does a piece of work with the disk, then rests. Blocks.
    pub fn after<T, E>(&mut self, world: &World, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        // Who runs all steps of a simulation must not sleep.
        if world.threads.steps().is_some() {
            return work();
        }
        let begun = world.clock.monotonic();
        let done = work();
        self.worked += world.clock.monotonic().duration_since(begun);
        // Shorter rests than a timer keeps are taken together.
        if self.worked >= Duration::from_micros(200) {
            std::thread::sleep(std::mem::take(&mut self.worked).min(LONGEST_REST));
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_and_others_do_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let lowered = std::thread::spawn(move || {
            give_way().unwrap();
            nice()
        });
        assert_eq!(lowered.join().unwrap(), NICE);
        assert_eq!(nice(), before);
    }

    #[test]
    fn the_result_of_a_piece_comes_back_and_quick_pieces_rest_together() {
        let world = World::real();
        let mut pace = Pace::default();
        assert_eq!(pace.after(&world, || Ok::<_, ()>(7)), Ok(7));
        assert_eq!(pace.after(&world, || Err::<(), _>("full")), Err("full"));
        assert!(pace.worked < Duration::from_micros(200));
    }
}
