//! The HELP line of every metric of ours, in one long table: name and text.
//!
//! Names are Prometheus's and Thanos's where the meaning is the same, so that their dashboards and alerts work.
//! A test of the binary compares the table with what the code counts.

/// Name and help of each metric, by name.
pub const HELP: &[(&str, &str)] = &[
    ("grpc_server_handled_total", "Calls that the gRPC server answered, by status."),
    ("grpc_server_started_total", "Calls that the gRPC server began to answer."),
    ("http_request_duration_seconds", "Time from a request's head to its answer's head."),
    ("http_requests_total", "HTTP requests answered, by status, route and method."),
    ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
    ("process_max_fds", "Maximum number of open file descriptors."),
    ("process_open_fds", "Number of open file descriptors."),
    ("process_resident_memory_bytes", "Resident memory size in bytes."),
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
    ("process_threads", "Number of operating system threads in the process."),
    ("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ("prometheus_engine_queries", "Queries being evaluated by this engine."),
    ("prometheus_engine_query_duration_seconds", "Time that the parts of an evaluation took."),
    ("prometheus_engine_query_samples_total", "Samples looked at by queries, summed over their steps."),
    ("prometheus_tsdb_blocks_loaded", "Local blocks that are open for reading."),
    ("prometheus_tsdb_compaction_duration_seconds", "Time that cutting the head into blocks took."),
    (
        "prometheus_tsdb_compactions_failed_total",
        "Cuts of the head that did not succeed and are tried again.",
    ),
    ("prometheus_tsdb_compactions_total", "Cuts of the head into blocks."),
    ("prometheus_tsdb_exemplar_exemplars_in_storage", "Exemplars that are kept, of all tenants."),
    ("prometheus_tsdb_head_max_time", "Time of the newest sample in the head, in milliseconds."),
    ("prometheus_tsdb_head_min_time", "Time of the oldest sample in the head, in milliseconds."),
    (
        "prometheus_tsdb_head_out_of_order_samples_appended_total",
        "Samples taken although their series had a newer one.",
    ),
    ("prometheus_tsdb_head_samples_appended_total", "Samples taken into the head."),
    ("prometheus_tsdb_head_series", "Series in the head."),
    ("prometheus_tsdb_head_series_created_total", "Series that came into the head."),
    ("prometheus_tsdb_head_series_removed_total", "Series that left the head after a cut."),
    (
        "prometheus_tsdb_time_retentions_total",
        "Local blocks deleted because they are older than the retention.",
    ),
    ("thanos_blocks_meta_sync_duration_seconds", "Time that a search of the bucket for blocks took."),
    ("thanos_blocks_meta_sync_failures_total", "Searches of the bucket that failed."),
    ("thanos_blocks_meta_synced", "Blocks found by the last search, by what became of them."),
    ("thanos_blocks_meta_syncs_total", "Searches of the bucket for blocks."),
    ("thanos_bucket_store_block_drops_total", "Blocks that are served no longer."),
    ("thanos_bucket_store_block_loads_total", "Blocks that came to be served."),
    (
        "thanos_bucket_store_blocks_last_loaded_timestamp_seconds",
        "When the bucket was last searched with success.",
    ),
    ("thanos_bucket_store_blocks_loaded", "Blocks that are served."),
    ("thanos_bucket_store_indexheader_lazy_load_total", "Index headers read because a query needed them."),
    ("thanos_bucket_store_series_blocks_queried", "Blocks asked for one answer."),
    (
        "thanos_build_info",
        "Always 1; its labels say which build this is, under the name that Thanos's dashboards know.",
    ),
    (
        "thanos_file_sd_read_errors_total",
        "Endpoint files that could not be read; what they said before stands.",
    ),
    ("thanos_objstore_bucket_last_successful_upload_time", "When something was last uploaded with success."),
    (
        "thanos_objstore_bucket_operation_duration_seconds",
        "Time that requests to the bucket took, retries included.",
    ),
    (
        "thanos_objstore_bucket_operation_failures_total",
        "Requests to the bucket that failed after all retries.",
    ),
    ("thanos_objstore_bucket_operation_fetched_bytes_total", "Bytes read from the bucket."),
    ("thanos_objstore_bucket_operation_transferred_bytes_total", "Bytes sent to the bucket."),
    ("thanos_objstore_bucket_operations_total", "Requests to the bucket, by operation."),
    ("thanos_proxy_store_failures_total", "Endpoints whose part of an answer was missing."),
    ("thanos_query_concurrent_gate_duration_seconds", "Time that queries waited for their turn."),
    ("thanos_query_concurrent_gate_queries_in_flight", "Queries being evaluated."),
    ("thanos_query_concurrent_gate_queries_max", "Queries evaluated at once at most."),
    ("thanos_receive_config_hash", "Hash of the ring file in use; receivers of one ring show the same."),
    (
        "thanos_receive_config_last_reload_success_timestamp_seconds",
        "When the ring file was last taken over.",
    ),
    (
        "thanos_receive_config_last_reload_successful",
        "1 if the last change of the ring file could be taken over, else 0.",
    ),
    ("thanos_receive_forward_requests_total", "Writes forwarded to peers, by outcome."),
    ("thanos_receive_hashring_nodes", "Endpoints of each ring."),
    ("thanos_receive_hashrings_file_changes_total", "Changes of the ring file that were seen."),
    ("thanos_receive_hashrings_file_errors_total", "Times the ring file could not be read or made no ring."),
    ("thanos_receive_hashrings_file_refreshes_total", "Times the ring file was looked at."),
    (
        "thanos_receive_head_series_limit",
        "Active series that a tenant (empty: all others) may have in the ring; 0 is no limit.",
    ),
    (
        "thanos_receive_head_series_limited_requests_total",
        "Requests of which new series were refused because of the limit of active series.",
    ),
    (
        "thanos_receive_limits_config_reload_err_total",
        "Reloads of the limits that failed; the limits before them stay in force.",
    ),
    ("thanos_receive_limits_config_reload_total", "Reloads of the limits that found a change."),
    ("thanos_receive_replication_factor", "Copies of every sample."),
    ("thanos_receive_replications_total", "Replications of writes, by outcome."),
    (
        "thanos_receive_write_limits",
        "Limits of a request, by tenant (empty: all others) and kind; 0 is none.",
    ),
    ("thanos_receive_write_limits_hit", "By how much requests passed a limit, by tenant and kind."),
    ("thanos_receive_write_samples", "Samples of one write."),
    ("thanos_receive_write_timeseries", "Series of one write."),
    ("thanos_shipper_dir_sync_failures_total", "Rounds of uploads that ended early."),
    ("thanos_shipper_dir_syncs_total", "Rounds of uploads."),
    ("thanos_shipper_upload_failures_total", "Blocks whose upload failed."),
    ("thanos_shipper_uploads_total", "Blocks uploaded."),
    ("thanos_shuffle_shard_cache_evicted_total", "Rings of tenants that had to go for others, by ring."),
    ("thanos_shuffle_shard_cache_hits_total", "Rings of tenants that were at hand, by ring."),
    ("thanos_shuffle_shard_cache_items", "Rings of tenants that are kept, by ring."),
    ("thanos_shuffle_shard_cache_max_items", "Rings of tenants that may be kept, by ring."),
    ("thanos_shuffle_shard_cache_requests_total", "Rings of tenants that were asked for, by ring."),
    ("thanos_store_dns_failures_total", "Names of endpoints that could not be looked up."),
    ("thanos_store_index_cache_hits_total", "Pieces of indexes found in memory."),
    ("thanos_store_index_cache_requests_total", "Pieces of indexes asked for."),
    ("thanos_store_nodes_grpc_connections", "Endpoints that answer, by external labels and kind."),
    ("tributary_build_info", "Always 1; its labels say which build this is."),
    (
        "tributary_catalog_healthy",
        "Whether the catalog takes writes; 0 after one failed, until it was opened anew.",
    ),
    ("tributary_catalog_memory_bytes", "Bytes of memory that the catalog holds, by part."),
    ("tributary_catalog_memory_limit_bytes", "Most bytes of memory that the catalog holds."),
    ("tributary_catalog_write_failures_total", "Writes to the catalog that failed."),
    (
        "tributary_control_calls_total",
        "Requests to other nodes of the control plane, by request and outcome.",
    ),
    ("tributary_control_elections", "HA pairs with an elected replica."),
    ("tributary_control_feature_level", "Feature level that the nodes of the cluster have agreed on."),
    (
        "tributary_control_generation",
        "How often what is agreed was brought back from a backup or a node that remembered.",
    ),
    (
        "tributary_control_in_touch",
        "Whether the node hears what a majority of the voters agrees on; 0 for long means that nothing can be changed.",
    ),
    ("tributary_control_is_leader", "Whether this voter leads."),
    ("tributary_control_is_voter", "Whether the node votes."),
    ("tributary_control_limits_version", "Version of the agreed limits; 0 where each node has its own."),
    ("tributary_control_nodes", "Registered nodes."),
    (
        "tributary_control_revision",
        "Entries of the shared log that made what is agreed, as far as it is known here.",
    ),
    (
        "tributary_control_ring_draining",
        "Nodes that left the ring and hold samples that are not in the bucket.",
    ),
    ("tributary_control_ring_epoch", "Number of the agreed ring epoch."),
    ("tributary_control_ring_joint", "Whether a change of the ring is in its middle: acks obey both rings."),
    ("tributary_control_ring_members", "Members of the agreed ring, or of the one to come."),
    ("tributary_control_ring_unretired_epochs", "Ring epochs that are over and not all in the bucket."),
    ("tributary_control_ring_warming", "New members that a proposed ring waits for."),
    (
        "tributary_drain_blocks",
        "Local blocks that cannot be read from the bucket yet, while something of the ring waits for them.",
    ),
    (
        "tributary_drain_samples",
        "Samples of the head that are not in a block yet, while something of the ring waits for them.",
    ),
    ("tributary_ha_tracker_clusters", "HA pairs of which somebody is heard."),
    (
        "tributary_ha_tracker_deduped_samples_total",
        "Samples acknowledged and not stored because another replica of their HA pair is listened to.",
    ),
    (
        "tributary_ha_tracker_elected_replica_changes_total",
        "How often another replica of an HA pair came to be listened to, the first one included.",
    ),
    (
        "tributary_ha_tracker_elected_replica_timestamp_seconds",
        "When the replica of an HA pair that is listened to came to be.",
    ),
    (
        "tributary_ha_tracker_elections_failed_total",
        "Elections of HA pairs that could not be agreed on, and were held by this node alone.",
    ),
    (
        "tributary_ha_tracker_gaps_possible_total",
        "Change-overs of HA pairs at which what was held did not reach back to where the one before ended.",
    ),
    ("tributary_ha_tracker_held_bytes", "Bytes of requests of replicas that are not listened to."),
    ("tributary_ha_tracker_held_requests", "Requests held of replicas that are not listened to."),
    (
        "tributary_ha_tracker_held_requests_dropped_total",
        "Requests of replicas that are not listened to, let go early for want of room.",
    ),
    (
        "tributary_ha_tracker_too_many_clusters_total",
        "Requests stored with their replica labels because their tenant has as many HA pairs as it may have.",
    ),
    (
        "tributary_ha_tracker_untold_requests_total",
        "Requests of tenants with HA pairs of which not every series names the same pair and replica.",
    ),
    (
        "tributary_hints_damaged_bytes_total",
        "Bytes of hints that cannot be read; they are kept beside the others.",
    ),
    (
        "tributary_hints_damaged_total",
        "Damaged files of hints that were set aside; what could be read of them is delivered.",
    ),
    ("tributary_hints_delivered_samples_total", "Samples that a peer missed and has now."),
    ("tributary_hints_dropped_samples_total", "Samples that a peer missed and will not get, by reason."),
    ("tributary_hints_healed_bytes_total", "Bytes of hints that a crash left unfinished, cut off."),
    ("tributary_hints_kept_samples_total", "Samples kept for a peer that did not take them."),
    (
        "tributary_hints_places_total",
        "Writes that waited for a place for what replicas may miss, by whether they found one.",
    ),
    ("tributary_hints_refused_samples_total", "Samples that a peer missed and refused afterwards."),
    ("tributary_hints_waiting_bytes", "Bytes on disk that wait for a peer."),
    ("tributary_hints_waiting_samples", "Samples that wait for a peer."),
    (
        "tributary_http_slow_heads_total",
        "Connections closed because a request's head took too long, by listener.",
    ),
    ("tributary_identity_bytes", "Bytes of memory in which known series are remembered."),
    ("tributary_identity_forgotten_total", "Series forgotten because they did not come for long."),
    (
        "tributary_identity_recognised_total",
        "Series received, by how they were recognised: predicted from the one before, looked up, or parsed.",
    ),
    ("tributary_identity_series", "Series that are recognised by their label bytes."),
    (
        "tributary_identity_turned_away_total",
        "Series not remembered because there was no room; they are parsed every time.",
    ),
    ("tributary_peer_bytes_total", "Bytes of frames between receivers, by direction."),
    (
        "tributary_peer_dictionary_resets_total",
        "Times that the names of a stream between receivers were begun anew, by direction.",
    ),
    (
        "tributary_peer_fallbacks_total",
        "Turns from frames to single calls: for one request, or for a peer that knows no frames.",
    ),
    ("tributary_peer_frames_total", "Frames between receivers, by direction."),
    ("tributary_peer_names", "Series that have a name on the stream to a peer."),
    ("tributary_peer_rows_total", "Series sent to peers in frames, by name or by labels."),
    ("tributary_peer_streams_total", "Streams opened between receivers, by direction."),
    (
        "tributary_peer_unknown_rows_total",
        "Series sent to a peer by a name that it did not know any more; they are sent again by labels.",
    ),
    (
        "tributary_query_stragglers_total",
        "Silent endpoints that answers, whole without them, did not wait for.",
    ),
    ("tributary_receive_admission_refused_total", "Writes not let in, by reason."),
    (
        "tributary_receive_blocks_missing_total",
        "Blocks past the retention that the bucket has lost and that are uploaded again.",
    ),
    (
        "tributary_receive_cut_failures_total",
        "Rounds of cutting, shipping and deleting that failed and are tried again.",
    ),
    ("tributary_receive_inflight_bytes", "Bytes that writes in flight hold."),
    (
        "tributary_receive_limits_config_last_reload_successful",
        "Whether the limits could be read when they were last looked at.",
    ),
    ("tributary_receive_memory_limit_bytes", "Memory that the process may use."),
    (
        "tributary_receive_memory_pressure",
        "Which writes are refused because memory is short: 0 none, 1 those of new series, 2 all.",
    ),
    ("tributary_receive_memory_refused_total", "Writes turned away because memory is short."),
    ("tributary_receive_memory_used_bytes", "Memory of the process that the system cannot take back."),
    ("tributary_receive_metadata_total", "Metrics of which something was said, by what became of it."),
    (
        "tributary_receive_passed_over_samples_total",
        "Samples of a replica that took over, which no receiver stores because one has the same scrape of its predecessor.",
    ),
    ("tributary_receive_peer_breaker", "Whether a peer is written to (0), probed (1) or left alone (2)."),
    ("tributary_receive_peer_breaker_opened_total", "How often a peer was left alone for a while, by cause."),
    (
        "tributary_receive_peer_labels_verified",
        "1 if the peer's external labels are known and differ from ours, else 0: uploads wait for it.",
    ),
    ("tributary_receive_peer_queue_bytes", "Bytes that wait for a peer."),
    ("tributary_receive_peer_write_seconds", "Time until a peer answered a write."),
    (
        "tributary_receive_rate_limited_requests_total",
        "Writes answered 429 because their tenant passed its rate, by what it is of.",
    ),
    (
        "tributary_receive_relabel_dropped_samples_total",
        "Samples whose series a relabelling rule dropped; they are acknowledged and not stored.",
    ),
    (
        "tributary_receive_replanned_total",
        "Writes that were placed anew because a replica had left their ring epoch.",
    ),
    ("tributary_receive_samples_total", "Samples received, by what became of them."),
    (
        "tributary_receive_stale_writes_total",
        "Writes of peers that were not taken because their ring epoch is over, or because they name none and this receiver has left the ring.",
    ),
    (
        "tributary_receive_unauthorized_requests_total",
        "Writes without a credential that is known, where one is needed.",
    ),
    (
        "tributary_receive_write_to_visible_seconds",
        "Time from a write's arrival until its samples are stored and any read sees them.",
    ),
    (
        "tributary_ring_epoch",
        "Number of the ring epoch that writes are placed by; 0 where the ring is a file.",
    ),
    ("tributary_ring_file_differs", "Whether the node's ring file says something else than what is agreed."),
    ("tributary_ring_file_proposals_total", "Edits of the ring file that were proposed, by what came of it."),
    (
        "tributary_ring_in_change",
        "Whether the ring is being changed: writes then obey the old one and the new one.",
    ),
    ("tributary_ring_min_epoch", "The ring epoch before which this node has promised to take no writes."),
    (
        "tributary_security_reloads_total",
        "Changes of certificate and password files, by whether they were taken or refused as wrong.",
    ),
    (
        "tributary_store_block_read_failures_total",
        "Blocks of the bucket that could not be read for an answer.",
    ),
    ("tributary_store_cache_bytes", "Bytes that pieces of blocks hold in memory."),
    ("tributary_store_index_header_bytes", "Bytes that index headers hold in memory."),
    ("tributary_tls_handshake_failures_total", "TLS handshakes that failed, by listener; the log says why."),
    (
        "tributary_tsdb_active_series",
        "Series that count towards a tenant's limit: those that got samples of late and have not ended.",
    ),
    ("tributary_tsdb_blocks_skipped_total", "Local blocks left out because they are damaged."),
    (
        "tributary_tsdb_oldest_unsealed_seconds",
        "How long ago the oldest of the samples arrived that are in no block yet.",
    ),
    ("tributary_tsdb_replay_seconds", "Time that the replay of the log took at the start."),
    ("tributary_tsdb_series_deleted_total", "Series of the head of which samples were deleted by hand."),
    (
        "tributary_tsdb_series_quarantined_total",
        "Series that could not be written into a block and were set aside.",
    ),
    (
        "tributary_tsdb_splice_passed_over_samples_total",
        "Samples of a replica that took over, too close to one that its predecessor had sent to be another scrape.",
    ),
    ("tributary_tsdb_tenants_pruned_total", "Tenants forgotten because they had neither series nor blocks."),
    ("tributary_wal_fsync_duration_seconds", "Time that one sync of the log took."),
    (
        "tributary_wal_poisoned",
        "1 after the log failed: nothing is acknowledged any more, the process must restart.",
    ),
    ("tributary_wal_read_only", "1 while the disk is full and writes are refused."),
    ("tributary_wal_records_total", "Records written to the log."),
    ("tributary_wal_refused_total", "Writes refused because the log cannot take them now."),
    ("tributary_wal_segments", "Segments of the log on disk."),
    ("tributary_wal_segments_deleted_total", "Segments deleted because blocks hold what they held."),
    (
        "tributary_wal_torn_tails_healed_total",
        "Unfinished records at the log's end that were cut off at a start.",
    ),
    ("tributary_wal_written_bytes_total", "Bytes written to the log."),
];

/// Gives every metric its text. The kind does not matter for that.
pub(crate) fn describe() {
    for (name, help) in HELP {
        metrics::describe_gauge!(*name, *help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_unique() {
        assert!(HELP.is_sorted_by(|a, b| a.0 < b.0));
        assert!(HELP.iter().all(|(_, help)| help.ends_with('.')));
    }
}
