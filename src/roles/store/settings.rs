//! What an operator may tune of a store gateway: Thanos's flags where they have a meaning here, and ours.

use std::path::PathBuf;

use bucket::TimeBound;
use settings::{ByteSize, Common, Grpc, Objstore, Scalar, Span, settings};

settings! {
    /// Serves the blocks of a bucket to queriers, by ranges, without downloading them.
    pub struct Settings {
        [..] common: Common;
        [..] grpc: Grpc;
        [..] objstore: Objstore;
        /// Folder for index headers and block metas. Nothing in it is needed: losing it costs requests at the
        /// next start. It grows with the number of blocks that are queried.
        ["data-dir"] data_dir: PathBuf = PathBuf::from("./data");
        [..] blocks: Blocks;
        [..] limits: Limits;
        /// Not supported: choosing blocks by relabelling. Use min-time and max-time to divide a bucket.
        [hidden "selector.relabel-config"] relabel_config: Option<String> = None;
        /// Not supported, as above.
        [hidden "selector.relabel-config-file"] relabel_config_file: Option<PathBuf> = None;
        [..] unused: Unused;
    }
}

settings! {
    /// Blocks.
    pub struct Blocks {
        /// How often the bucket is searched for new and deleted blocks. More often shows new blocks sooner and
        /// costs one listing per block each time.
        ["sync-block-duration"] sync_block_duration: Span = Span::from_mins(15);
        /// Earliest time that is served: RFC 3339, or a duration before now such as -6w. Empty: no bound.
        ["min-time"] min_time: TimeBound = TimeBound::None;
        /// Latest time that is served, written as min-time is.
        ["max-time"] max_time: TimeBound = TimeBound::None;
        /// Blocks younger than this are left for later; only for stores that do not list at once what was
        /// written.
        ["consistency-delay"] consistency_delay: Span = Span::from_secs(0);
        /// Blocks marked for deletion are served for this long after they were marked, so that what replaces
        /// them is seen first. It must be shorter than the compactor's delete-delay.
        ["ignore-deletion-marks-delay"] ignore_deletion_marks_delay: Span = Span::from_hours(24);
        /// Blocks that are read at the same time for all queries together.
        ["block-sync-concurrency"] block_sync_concurrency: usize = 20;
        /// Requests at the same time while the bucket is searched.
        ["block-meta-fetch-concurrency"] block_meta_fetch_concurrency: usize = 32;
        /// How the bucket is searched: concurrent lists each block by itself, recursive lists everything in one
        /// go, which takes fewer requests but lists what is not a block as well.
        ["block-discovery-strategy"] block_discovery_strategy: Discovery = Discovery::Concurrent;
    }
}

settings! {
    /// Caches and limits.
    pub struct Limits {
        /// Memory for pieces of indexes: postings and series. Too little fetches them again for every query.
        ["index-cache-size"] index_cache_size: ByteSize = ByteSize::from_mib(250);
        /// Memory for pieces of chunk files. It fills up with use and is never exceeded.
        ["chunk-pool-size"] chunk_pool_size: ByteSize = ByteSize::from_gib(2);
        /// Memory for index headers (symbols and the places of postings). Those not used for the longest time
        /// are dropped and read again from data-dir.
        ["store.index-header-memory"] index_header_memory: ByteSize = ByteSize::from_gib(1);
        /// Series calls that are worked on at the same time; further ones wait.
        ["store.grpc.series-max-concurrency"] series_max_concurrency: usize = 20;
        /// Most bytes that one call may fetch from the bucket for one set of external labels; 0 is no limit. A
        /// call that needs more fails and says so.
        ["store.grpc.downloaded-bytes-limit"] downloaded_bytes_limit: ByteSize = ByteSize::from_bytes(0);
        /// Most series that one call may answer with; 0 is no limit.
        ["store.limits.request-series"] request_series: u64 = 0;
        /// Most samples that one call may answer with, at 120 to a chunk; 0 is no limit.
        ["store.limits.request-samples"] request_samples: u64 = 0;
    }
}

settings! {
    /// Flags of Thanos without effect.
    pub struct Unused {
        /// Index headers are always kept on disk.
        [hidden "cache-index-header"] cache_index_header: Option<bool> = None;
        /// The index cache is in memory; see index-cache-size.
        [hidden "index-cache.config"] index_cache: Option<String> = None;
        /// As above.
        [hidden "index-cache.config-file"] index_cache_file: Option<PathBuf> = None;
        /// Pages of chunks are cached in memory; see chunk-pool-size.
        [hidden "store.caching-bucket.config"] caching_bucket: Option<String> = None;
        /// As above.
        [hidden "store.caching-bucket.config-file"] caching_bucket_file: Option<PathBuf> = None;
        /// Index headers are always read when first needed.
        [hidden "store.enable-index-header-lazy-reader"] lazy_reader: Option<bool> = None;
        /// Index headers leave memory by store.index-header-memory.
        [hidden "store.index-header-lazy-reader-idle-timeout"] lazy_reader_idle: Option<Span> = None;
        /// Index headers are always fetched when first needed.
        [hidden "store.index-header-lazy-download-strategy"] lazy_download: Option<String> = None;
        /// Long postings lists are always left unread where labels decide as well.
        [hidden "store.enable-lazy-expanded-postings"] lazy_postings: Option<bool> = None;
        /// There is no block viewer.
        [hidden "web.disable"] web_disable: Option<bool> = None;
        /// There is no block viewer.
        [hidden "bucket-web-label"] web_label: Option<String> = None;
        /// There are no administrative operations.
        [hidden "disable-admin-operations"] disable_admin: Option<bool> = None;
    }
}

impl Unused {
    /// Names of those that were given.
    pub fn given(&self) -> Vec<&'static str> {
        let texts = |setting: &settings::Setting| {
            settings::Load::texts(self, setting.name).is_some_and(|texts| !texts.is_empty())
        };
        let all = <Unused as settings::Load>::all();
        all.iter().filter(|setting| texts(setting)).map(|setting| setting.name).collect()
    }
}

impl Settings {
    fn validate(&self) -> Result<(), String> {
        if self.relabel_config.is_some() || self.relabel_config_file.is_some() {
            return Err(
                "--selector.relabel-config is not supported by this version; divide a bucket between \
                        stores by --min-time and --max-time"
                    .to_owned(),
            );
        }
        if self.objstore.document().is_none() {
            return Err("--objstore.config-file or --objstore.config is required".to_owned());
        }
        Ok(())
    }
}

/// How a bucket is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    Concurrent,
    Recursive,
}

impl Scalar for Discovery {
    const PLACEHOLDER: &'static str = "STRATEGY";

    fn parse(text: &str) -> Result<Discovery, String> {
        match text {
            "concurrent" => Ok(Discovery::Concurrent),
            "recursive" => Ok(Discovery::Recursive),
            _ => Err(format!("{text:?} is neither concurrent nor recursive")),
        }
    }

    fn show(&self) -> String {
        match self {
            Discovery::Concurrent => "concurrent".to_owned(),
            Discovery::Recursive => "recursive".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_not_supported_is_named() {
        let mut settings = Settings::default();
        assert!(settings.validate().unwrap_err().contains("--objstore.config-file"));
        settings.objstore.config = Some("type: FILESYSTEM".to_owned());
        assert_eq!(settings.validate(), Ok(()));
        assert!(settings.unused.given().is_empty());
        settings.unused.cache_index_header = Some(true);
        assert_eq!(settings.unused.given(), ["cache-index-header"]);
        settings.relabel_config = Some(String::new());
        assert!(settings.validate().unwrap_err().contains("not supported"));
    }
}
