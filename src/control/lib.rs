//! What the nodes agree on, behind a log that the voters share: proposing to it, watching it, and answering for it.
//!
//! Three or five nodes are [`Voter`]s; what they agree on is [`agreed::State`], kept with the log (openraft) in the
//! catalog. It is small and slow: a handful of commands an hour, each two fdatasyncs on every voter. Without a majority
//! nothing new is agreed on and everything goes on as it was. How voters reach each other is not known here
//! ([`Transport`]).
//!
//! Every node has a [`Handle`]: a [`Voter`], a [`Subscriber`], or, in tests, one alone. Who proposes what: a [`Member`]
//! registers its node and says when it is ready; the receiver says which epochs it refuses (`Adopted`) and of which the
//! bucket has everything (`Clear`); the watched ring file and `tributary ring` propose rings.

mod error;
mod handle;
mod log;
mod machine;
mod member;
mod message;
#[cfg(test)]
mod store_test;
mod subscriber;
mod transport;
mod types;
mod voter;

pub use error::Error;
pub use handle::Handle;
pub use member::{LEVELS, Member, cluster_of};
pub use message::{About, Hello, Mark, Proposed, Refused, Request, Response, Seen};
pub use subscriber::Subscriber;
pub use transport::Transport;
pub use types::{Refusal, Reply};
pub use voter::{Settings, Voter};
