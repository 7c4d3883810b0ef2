//! Values that a person may tune, and how they are read: from flags, from a YAML file, from defaults.
//!
//! A role declares its settings once, with [`settings!`]. From that declaration come the struct with its
//! defaults, the command line flags and their help, the keys of `--config.file`, the record of where each
//! value came from, and the example files in `config/`. What flags and file have in common is [`Setting`];
//! what they read into is [`Load`].
//!
//! The order is: flag, else file, else default. The crate opens no file and reads no environment: texts and
//! look-ups are handed in. It knows no role.

mod bytes;
mod content;
mod error;
mod example;
mod file;
mod flags;
mod label;
mod listen;
mod load;
mod macros;
mod nearest;
mod secret;
mod shared;
mod span;
mod value;

pub use bytes::ByteSize;
pub use content::{PathOrContent, substitute};
pub use error::Error;
pub use example::example;
pub use file::FileText;
pub use flags::{CONFIG_FILE, config_file, with_flags};
pub use label::LabelPair;
pub use listen::Listen;
#[doc(hidden)]
pub use load::prose as __prose;
pub use load::{Load, Loaded, Origin, Provenance, Setting, ValidByDefault, from_args, load};
pub use nearest::nearest;
pub use secret::{Secret, SecretSource};
pub use shared::{
    Common, Control, Grpc, GrpcClientTls, GrpcServerTls, Log, LogFormat, LogLevel, Objstore, TlsFiles,
};
pub use span::Span;
pub use value::{Scalar, Value};
