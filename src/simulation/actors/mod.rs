//! Who acts in a run: receivers that live and die, senders that retry, a querier and the store that it asks, an operator, and the
//! troubles.

mod gateway;
mod node;
mod operator;
mod pair;
mod querier;
mod sender;
mod trouble;

pub use gateway::Gateway;
pub use node::{Life, LifeId, Node, Who, address, ring, seat_of};
pub use operator::Operator;
pub use pair::Pair;
pub use querier::Querier;
pub use sender::Sender;
pub use trouble::Trouble;
