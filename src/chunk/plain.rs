//! Chunks as everybody reads them: the newer encodings without the start times that they carry.

use bytes::Bytes;

use crate::histogram::{At, FloatIter, IntIter, encode_floats, encode_ints};
use crate::xor::{self, MAX_SAMPLES};
use crate::{ChunkData, Encoding, Error, xor2};

/// A chunk in an encoding that readers before Prometheus 3.x know; most are in one already. One of histograms may
/// become several.
pub fn plain(chunk: ChunkData) -> Result<Vec<ChunkData>, Error> {
    match chunk.encoding {
        Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram | Encoding::Aggregate => {
            Ok(vec![chunk])
        }
        Encoding::Xor2 => {
            let samples: Result<Vec<_>, Error> =
                xor2::Iter::new(&chunk.bytes)?.map(|sample| Ok(sample?.0)).collect();
            let bytes = Bytes::from(xor::encode(samples?)?);
            Ok(vec![ChunkData { range: chunk.range, encoding: Encoding::Xor, bytes }])
        }
        Encoding::HistogramStart => {
            let samples: Result<Vec<At<_>>, Error> = IntIter::started(&chunk.bytes)?.collect();
            encode_ints(samples?, MAX_SAMPLES)
        }
        Encoding::FloatHistogramStart => {
            let samples: Result<Vec<At<_>>, Error> = FloatIter::started(&chunk.bytes)?.collect();
            encode_floats(samples?, MAX_SAMPLES)
        }
    }
}
