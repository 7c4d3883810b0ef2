//! PromQL: text to tree, tree to plan, plan to operators over columns, operators to a value.
//!
//! A query comes in as text and a time (or a start, an end and a step); samples come from whoever implements
//! [`storage::Select`]; the answer is a [`QueryResult`]. Everything here is synchronous and is called on a
//! thread that may block. The crate knows no protocol, no file and no place where series live.
//!
//! The way of a query: [`parse`] (text to [`Expr`]) -> [`plan`] ([`Expr`] to [`plan::Node`], passes) -> `exec`
//! (operators, one series at a time over all steps) -> [`Value`].

mod engine;
mod error;
mod exec;
mod features;
pub mod native;
pub mod parse;
pub mod plan;
mod room;
mod settings;
pub mod testing;
mod value;

pub use engine::{Details, Engine, InstantRequest, RangeRequest};
pub use error::{Class, Error};
pub use features::{Enabled, Features};
pub use parse::{Expr, ParseError, parse, parse_selector, selectors};
pub use plan::Explained;
pub use settings::EngineSettings;
pub use value::{Analysis, NativePoint, Point, QueryResult, Series, Stats, Value, VectorSample};
