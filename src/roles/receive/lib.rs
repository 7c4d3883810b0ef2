//! The receiver: takes remote writes, places them on the ring, keeps copies, cuts blocks and ships them.

mod decode;
mod error;
mod quorum;
mod route;
mod settings;
mod status;

pub use error::Error;
pub use settings::{
    Admission, AlgorithmName, DurabilityName, Mode, QuorumName, Replication, Settings, Storage, Tenancy,
};
