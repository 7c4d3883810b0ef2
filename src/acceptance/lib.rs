//! Tools of the acceptance tests: the shipped binary and real peers, started on loopback, asked over their
//! public doors, and stopped by process id.

mod cluster;
mod compare;
mod http;
mod process;

pub use cluster::Cluster;
pub use compare::{Said, Series, When, ask, difference};
pub use http::{Answer, get, percent, post, post_form};
pub use process::{Program, Running, beside, binary, find_program, wait_agreed, wait_until};
pub use testkit::free_port;
