//! Tools of the acceptance tests: the shipped binary and real peers, started on loopback, asked over their
//! public doors, and stopped by process id.

mod http;
mod process;

pub use http::{Answer, get, percent, post, post_form};
pub use process::{Program, Running, binary, find_program, free_port, wait_until};
