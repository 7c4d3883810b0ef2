//! Encodings of one series over a short time.
//!
//! A chunk is the unit in which samples are kept, written to blocks and sent to queriers. This crate turns
//! samples into chunk bytes and back; it knows neither files nor labels. Formats: `FORMAT.md`.

/// The examples of the format page are run as tests.
#[cfg(doctest)]
#[doc = include_str!("FORMAT.md")]
pub struct FormatPage;

mod bits;
pub mod cut;
mod data;
mod error;
pub mod histogram;
mod plain;
mod starts;
mod varbit;
mod window;
pub mod xor;
pub mod xor2;

pub use data::ChunkData;
pub use error::Error;
pub use plain::plain;

/// How a chunk's bytes are to be read; the discriminant is the encoding byte of Prometheus's chunk files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats, Gorilla-style (Facebook's paper, Prometheus's bit layout).
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
    /// Floats with start times (Prometheus 3.x, `xor2`).
    Xor2 = 4,
    /// Native histograms with integer counts and start times.
    HistogramStart = 5,
    /// Native histograms with float counts and start times.
    FloatHistogramStart = 6,
    /// Thanos's downsampled aggregates.
    Aggregate = 0xff,
}

impl Encoding {
    /// Reads an encoding byte; none for those this version does not know.
    pub fn from_byte(byte: u8) -> Option<Encoding> {
        match byte {
            1 => Some(Encoding::Xor),
            2 => Some(Encoding::Histogram),
            3 => Some(Encoding::FloatHistogram),
            4 => Some(Encoding::Xor2),
            5 => Some(Encoding::HistogramStart),
            6 => Some(Encoding::FloatHistogramStart),
            0xff => Some(Encoding::Aggregate),
            _ => None,
        }
    }
}
