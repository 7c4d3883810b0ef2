//! What the process says about itself: logs, metrics, build information.
//!
//! Everybody logs with `tracing` and counts with `metrics`; this crate installs where that goes. It knows no
//! role, no protocol and no settings: levels and formats are handed in, and pages are served by others.

mod buildinfo;
mod help;
mod line;
mod logs;
mod metric;
mod process;
mod recorder;

pub use buildinfo::{Build, build};
pub use help::HELP;
pub use logs::{Format, Level, init_logs};
pub use metric::{Handle, install_metrics};
pub use process::{memory_limit, memory_used};
