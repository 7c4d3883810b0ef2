//! Who acts in a run: receivers that live and die, senders that retry, a querier, and the troubles.

mod node;
mod querier;
mod sender;
mod trouble;

pub use node::{Life, LifeId, Node, Who, ring};
pub use querier::Querier;
pub use sender::Sender;
pub use trouble::Trouble;
