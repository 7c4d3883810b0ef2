//! The column families: what each is for, and how RocksDB is held within the catalog's memory.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel, Options,
    WriteBufferManager,
};

/// Which blocks of this node are in which bucket.
pub(crate) const LEDGER: &str = "ledger";
/// Type, help and unit of metrics, by tenant.
pub(crate) const METADATA: &str = "metadata";
/// Entries of the log that voters share, by number (u64 BE).
pub(crate) const RAFT_LOG: &str = "raft-log";
/// What a voter remembers of it: its number, vote, what is committed and purged, the last snapshot; by name.
pub(crate) const RAFT_STATE: &str = "raft-state";
/// Which hint files there are for which peer, and how far they were delivered.
pub(crate) const HINTS: &str = "hints";

pub(crate) const ALL: [&str; 5] = [LEDGER, METADATA, RAFT_LOG, RAFT_STATE, HINTS];

/// What the catalog answers for: block cache, write buffers and everything beside them.
pub const MEMORY_LIMIT: u64 = 32 << 20;

/// Blocks read, indexes and filters of open files, and the write buffers' bytes, which are counted into it.
const CACHE_BYTES: usize = 12 << 20;
/// Write buffers of all families together; beyond it writers wait for a flush.
const BUFFER_BYTES: usize = 6 << 20;
/// One family's write buffer.
const FAMILY_BUFFER_BYTES: usize = 2 << 20;
/// RocksDB takes memory for a buffer in pieces; an empty family has one.
const ARENA_BYTES: usize = 64 << 10;
/// Log that is not yet in files; beyond it the oldest family is flushed.
const LOG_BYTES: u64 = 8 << 20;

/// Memory shared by all families.
#[derive(Clone)]
pub(crate) struct Memory {
    pub cache: Cache,
    pub buffers: WriteBufferManager,
}

impl Memory {
    pub fn new() -> Memory {
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(BUFFER_BYTES, true, cache.clone());
        Memory { cache, buffers }
    }
}

/// Options of the database as a whole.
pub(crate) fn database(memory: &Memory, create: bool) -> Options {
    let mut options = family(memory);
    options.create_if_missing(create);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // The log is read up to its first damage; whether something confirmed was behind it, the mark says.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_manager(&memory.buffers);
    options.set_max_total_wal_size(LOG_BYTES);
    options.set_recycle_log_file_num(0);
    // Few files, few of them open, one thread: this is a small database beside a large one.
    options.set_max_open_files(64);
    options.set_table_cache_num_shard_bits(2);
    options.set_max_background_jobs(2);
    options.set_max_subcompactions(1);
    options.set_compaction_readahead_size(64 << 10);
    options.set_writable_file_max_buffer_size(128 << 10);
    options.set_max_manifest_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(256 << 10);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// Options of one family.
pub(crate) fn family(memory: &Memory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(false);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(FAMILY_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(ARENA_BYTES);
    options.set_target_file_size_base(4 << 20);
    options.set_max_bytes_for_level_base(16 << 20);
    options
}

pub(crate) fn descriptors(memory: &Memory) -> Vec<ColumnFamilyDescriptor> {
    let all = ["default"].into_iter().chain(ALL);
    all.map(|name| ColumnFamilyDescriptor::new(name, family(memory))).collect()
}
