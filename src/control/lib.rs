//! What the nodes agree on, behind a log that the voters share: proposing to it, watching it, and answering for it.
//!
//! Three or five nodes are [`Voter`]s; what they agree on is [`agreed::State`], kept with the log (openraft) in the
//! catalog. It is small and slow: a handful of commands an hour, each two fdatasyncs on every voter. Without a majority
//! nothing new is agreed on and everything goes on as it was. How voters reach each other is not known here
//! ([`Transport`]).
//!
//! Every node has a [`Handle`]: a [`Voter`], a [`Subscriber`], or, in tests, one alone. Who proposes what: a receiver
//! registers, and says when it is ready, which epochs it refuses (`Adopted`) and of which the bucket has everything
//! (`Clear`); the watched ring file and `tributary ring` propose rings.

mod change;
mod handle;
mod log;
mod machine;
mod measure;
mod message;
mod progress;
#[cfg(test)]
mod store_test;
mod subscriber;
mod transport;
mod types;
mod voter;

/// Feature levels that this version speaks, from and to. A level more comes with whatever an older version would
/// misunderstand: a command of the log, a frame, a file.
pub const LEVELS: (u32, u32) = (1, 2);

/// The levels that a node says it speaks where it is to speak none above `most`; 0 for all.
pub fn levels(most: u32) -> (u32, u32) {
    let (from, to) = LEVELS;
    (from, if most == 0 { to } else { most.clamp(from, to) })
}

pub use change::{Change, plan};
pub use handle::Handle;
pub use measure::measure;
pub use message::{About, Hello, Mark, Proposed, Refused, Request, Response, Seen};
pub use model::Error;
pub use progress::{Phase, Progress};
pub use subscriber::Subscriber;
pub use transport::Transport;
pub use types::{Refusal, Reply};
pub use voter::{Settings, Voter};
