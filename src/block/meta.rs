//! `meta.json`: what a block says of itself, in Prometheus's shape with Thanos's section.
//!
//! Fields that this version does not know are kept and written back. The file is the last thing written into a
//! block: a folder without it is no block.

use std::collections::BTreeMap;

use model::{TimeRange, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{BlockId, Error};

/// Name of the file in a block's folder.
pub const FILE: &str = "meta.json";
/// Go's zero time, by which Thanos says "not uploaded".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The whole of `meta.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    pub ulid: BlockId,
    /// Milliseconds, inclusive.
    pub min_time: Timestamp,
    /// Milliseconds, exclusive.
    pub max_time: Timestamp,
    #[serde(default)]
    pub stats: Stats,
    #[serde(default)]
    pub compaction: Compaction,
    pub version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thanos: Option<Thanos>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Counts over the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
}

/// Where the block comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// 1 for a cut of a head, one more with every merge.
    pub level: u32,
    /// All blocks of level 1 that went into it, itself included at level 1.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub sources: Vec<BlockId>,
    #[serde(skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// The blocks it was directly made of.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub parents: Vec<Parent>,
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub hints: Vec<String>,
}

/// Hint of a block that holds what came too late for the block of its window.
pub const HINT_OUT_OF_ORDER: &str = "from-out-of-order";

/// A block that was merged into this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    pub ulid: BlockId,
    pub min_time: Timestamp,
    pub max_time: Timestamp,
}

/// Thanos's section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thanos {
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u64,
    /// External labels: who wrote it, for whom. Never empty in a bucket.
    #[serde(deserialize_with = "null_as_empty")]
    pub labels: BTreeMap<String, String>,
    pub downsample: Downsample,
    pub source: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub segment_files: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub files: Vec<BlockFile>,
    pub index_stats: IndexStats,
    /// RFC 3339, see [`rfc3339`]; year 1 while not uploaded.
    pub upload_time: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for Thanos {
    fn default() -> Self {
        Thanos {
            version: 1,
            labels: BTreeMap::new(),
            downsample: Downsample::default(),
            source: String::new(),
            segment_files: Vec::new(),
            files: Vec::new(),
            index_stats: IndexStats::default(),
            upload_time: NEVER.to_owned(),
            other: Map::new(),
        }
    }
}

/// How coarse the samples are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Downsample {
    /// Milliseconds: 0 raw, 300000 or 3600000.
    pub resolution: i64,
}

/// A file of the block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockFile {
    /// Path within the block's folder.
    pub rel_path: String,
    /// Absent for `meta.json` itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: u64,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Sizes by which a store gateway plans its reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexStats {
    /// Largest series entry of the index, in bytes, padding included.
    #[serde(skip_serializing_if = "is_zero")]
    pub series_max_size: u64,
    /// Largest chunk with its frame, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_max_size: u64,
}

impl Meta {
    /// Reads the file's content.
    pub fn parse(text: &[u8]) -> Result<Meta, Error> {
        let meta: Meta = serde_json::from_slice(text)
            .map_err(|e| Error::corrupt(format!("meta.json is not what a block has: {e}")))?;
        if meta.version != 1 {
            let message = format!("meta.json has version {}, only 1 is known", meta.version);
            return Err(Error::new(model::Kind::Refused, message));
        }
        if let Some(thanos) = &meta.thanos
            && thanos.version > 1
        {
            let message =
                format!("meta.json has a thanos section of version {}, only 1 is known", thanos.version);
            return Err(Error::new(model::Kind::Refused, message));
        }
        Ok(meta)
    }

    /// The file's content: JSON indented with tabs.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(1024);
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        self.serialize(&mut serializer)
            .map_err(|e| Error::new(model::Kind::Internal, format!("meta.json cannot be written: {e}")))?;
        Ok(out)
    }

    /// The closed range of times that samples of this block may have.
    pub fn range(&self) -> TimeRange {
        match self.max_time.checked_sub(1) {
            Some(end) => TimeRange::new(self.min_time, end),
            None => TimeRange::EMPTY,
        }
    }

    /// Milliseconds between samples if downsampled, 0 for raw.
    pub fn resolution(&self) -> i64 {
        self.thanos.as_ref().map_or(0, |t| t.downsample.resolution)
    }

    /// External labels; empty for a block that Prometheus wrote.
    pub fn external_labels(&self) -> Result<model::Labels, Error> {
        let pairs = self.thanos.iter().flat_map(|t| &t.labels);
        model::Labels::from_pairs(pairs)
            .map_err(|e| Error::corrupt(format!("external labels of meta.json: {e}")))
    }
}

/// Milliseconds since the epoch as Go writes a UTC time: `2024-01-02T03:04:05.006Z`.
pub fn rfc3339(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days to a date by the 400-year cycle, counted from 1 March 0000.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s, f) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if f > 0 {
        out.push_str(format!(".{f:03}").trim_end_matches('0'));
    }
    out.push('Z');
    out
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// Go writes an empty list or map as `null` at times.
fn null_as_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THANOS: &str = r#"{
	"ulid": "01HQ0000000000000000000000",
	"minTime": 1700000000000,
	"maxTime": 1700007200000,
	"stats": {
		"numSamples": 4,
		"numSeries": 1,
		"numChunks": 1
	},
	"compaction": {
		"level": 1,
		"sources": [
			"01HQ0000000000000000000000"
		],
		"hints": [
			"from-out-of-order"
		]
	},
	"version": 1,
	"thanos": {
		"version": 1,
		"labels": {
			"replica": "a"
		},
		"downsample": {
			"resolution": 0
		},
		"source": "receive",
		"segment_files": [
			"000001"
		],
		"files": [
			{
				"rel_path": "index",
				"size_bytes": 7
			},
			{
				"rel_path": "meta.json"
			}
		],
		"index_stats": {
			"series_max_size": 64
		},
		"upload_time": "0001-01-01T00:00:00Z",
		"extensions": {
			"a": 1
		}
	},
	"fresh": true
}"#;

    #[test]
    fn reads_and_writes_back_what_thanos_writes() {
        let meta = Meta::parse(THANOS.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(meta.to_json().unwrap()).unwrap(), THANOS);
        assert_eq!(meta.range(), TimeRange::new(1_700_000_000_000, 1_700_007_199_999));
        assert_eq!(meta.external_labels().unwrap().value("replica"), "a");
        assert_eq!(meta.thanos.unwrap().other["extensions"]["a"], 1);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let kind = |from: &str, to: &str| Meta::parse(THANOS.replace(from, to).as_bytes()).unwrap_err().kind;
        assert_eq!(
            kind("\t\"version\": 1,\n\t\"thanos\"", "\t\"version\": 2,\n\t\"thanos\""),
            model::Kind::Refused
        );
        assert_eq!(
            kind("\"version\": 1,\n\t\t\"labels\"", "\"version\": 3,\n\t\t\"labels\""),
            model::Kind::Refused
        );
        assert_eq!(kind("01HQ0000000000000000000000", "../../etc"), model::Kind::Corrupt);
        for end in 0..THANOS.len() {
            assert!(Meta::parse(&THANOS.as_bytes()[..end]).is_err());
        }
        let nulls = r#"{"ulid":"01HQ0000000000000000000000","minTime":1,"maxTime":2,"version":1,
            "compaction":{"level":1,"sources":null},"thanos":{"labels":null}}"#;
        assert_eq!(Meta::parse(nulls.as_bytes()).unwrap().compaction.sources, []);
    }

    #[test]
    fn times_as_go_writes_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_210_096_120), "2024-02-29T12:34:56.12Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(-62_135_596_800_000), NEVER);
    }
}
