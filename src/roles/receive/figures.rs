//! Figures of the node's own head over gRPC, as `thanos.Status` has them.

use api::{HeadFigures, Heads};
use model::Kind;
use rpc::facts::Statistics;
use rpc::{Tell, Told};
use storage::{Context, Error};
use wire::pb::thanos as pb;

use crate::heads::OwnHead;

/// Entries of a list where the caller names no number.
const LIMIT: usize = 10;

impl Tell<Statistics> for OwnHead {
    /// Of every tenant: queriers above choose. Ours enforce tenancy on what they hand out.
    fn tell(
        &self,
        request: &pb::TsdbStatisticsRequest,
        _: Option<&str>,
        context: &Context,
    ) -> Result<Told<pb::TsdbStatistics>, Error> {
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(LIMIT);
        #[allow(deprecated)] // Older callers name the tenant here.
        let named = Some(request.tenant.as_str()).filter(|tenant| !tenant.is_empty());
        let failed = |problem: api::Problem| {
            let unavailable = problem.error_type == api::ErrorType::Unavailable;
            Error::new(if unavailable { Kind::Unavailable } else { Kind::Invalid }, problem.message)
        };
        let mut all = pb::TsdbStatistics::default();
        for tenant in self.tenants().map_err(failed)? {
            if named.is_some_and(|named| named != tenant) {
                continue;
            }
            if let Some(figures) = self.figures(&tenant, limit, &context.cancel).map_err(failed)? {
                all.statistics.insert(tenant, to_pb(figures));
            }
        }
        Ok(Told { items: vec![all], ..Told::default() })
    }
}

fn to_pb(figures: HeadFigures) -> pb::TsdbStatisticsEntry {
    let list = |counts: Vec<(String, u64)>| {
        counts.into_iter().map(|(name, value)| pb::Statistic { name, value }).collect()
    };
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    pb::TsdbStatisticsEntry {
        head_statistics: Some(pb::HeadStatistics {
            num_series: figures.series,
            num_label_pairs: signed(figures.label_pairs),
            chunk_count: signed(figures.chunks),
            min_time: figures.range.start,
            max_time: figures.range.end,
        }),
        series_count_by_metric_name: list(figures.series_by_metric),
        label_value_count_by_label_name: list(figures.values_by_label),
        memory_in_bytes_by_label_name: list(figures.bytes_by_label),
        series_count_by_label_value_pair: list(figures.series_by_pair),
    }
}
