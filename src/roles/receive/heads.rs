//! What the head's series are made of, tenant by tenant, for the status page.

use std::sync::Arc;

use api::{HeadFigures, Heads, Problem};
use model::TenantId;
use storage::Cancel;
use tsdb::Tsdb;

use crate::write::Writer;

/// The node's own head.
pub struct OwnHead(pub Arc<Writer>);

impl OwnHead {
    fn engine(&self) -> Result<&Arc<Tsdb>, Problem> {
        self.0.local().engine().ok_or_else(|| Problem::unavailable("the log is being replayed"))
    }
}

impl Heads for OwnHead {
    fn tenants(&self) -> Result<Vec<String>, Problem> {
        Ok(self.engine()?.tenants().iter().map(ToString::to_string).collect())
    }

    fn blocks(&self, tenant: &str) -> Result<Vec<block::Meta>, Problem> {
        let tenant = TenantId::new(tenant).map_err(|e| Problem::bad_data(e.to_string()))?;
        let mut metas: Vec<_> = self.engine()?.local_blocks(&tenant).into_iter().map(|b| b.meta).collect();
        metas.sort_by_key(|meta| (meta.min_time, meta.ulid));
        Ok(metas)
    }

    fn figures(&self, tenant: &str, limit: usize, cancel: &Cancel) -> Result<Option<HeadFigures>, Problem> {
        let tenant = TenantId::new(tenant).map_err(|e| Problem::bad_data(e.to_string()))?;
        let Some(view) = self.engine()?.tenant(&tenant) else { return Ok(None) };
        let found = view.cardinality(limit, cancel)?;
        Ok(Some(HeadFigures {
            series: found.series,
            label_pairs: found.label_pairs,
            chunks: found.chunks,
            range: found.range,
            series_by_metric: found.series_by_metric,
            values_by_label: found.values_by_label,
            bytes_by_label: found.bytes_by_label,
            series_by_pair: found.series_by_pair,
        }))
    }
}
