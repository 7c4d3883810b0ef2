//! Who may connect, and under which name: TLS from files that may change, and passwords.
//!
//! A listener asks for [`ServerTls`] and [`Passwords`], a connection to a peer for [`ClientTls`]. Files are read again
//! when they change; new connections see the new ones, those that are open stay. A file that became wrong leaves the old
//! one in force, with a line in the log and a metric. The crate knows no protocol above TLS but HTTP's `Authorization`.

mod checks;
mod client;
mod credentials;
mod error;
mod files;
mod passwords;
mod server;
mod versions;
mod watched;
mod web;

pub use checks::Busy;
pub use client::{ClientFiles, ClientTls};
pub use credentials::{Bound, Credentials};
pub use error::{Error, explain};
pub use passwords::Passwords;
pub use server::{ClientAuth, PeerNames, ServerFiles, ServerTls};
pub use versions::MinVersion;
pub use watched::Watched;
pub use web::{Entry, WebConfig, WebSecurity};
