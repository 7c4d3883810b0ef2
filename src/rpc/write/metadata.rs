//! What is said of metrics, on its way between receivers: in our part of a write request without samples.

use model::{Meaning, MetricKind, MetricMetadata, TenantId};
use storage::Error;
use wire::pb::tributary::v1;
use wire::remote_write::PeerEncoder;

use super::{WriteClient, WriteError};

impl WriteClient {
    /// Tells one of our receivers what is said of metrics that are placed there. Once it has taken them, this returns;
    /// a receiver of an earlier version passes them over.
    pub async fn write_metadata(&self, tenant: &TenantId, said: &[MetricMetadata]) -> Result<(), WriteError> {
        let metadata = v1::TenantMetadata {
            tenant: tenant.as_str().to_owned(),
            metadata: said.iter().map(to_pb).collect(),
        };
        let context = v1::WriteContext {
            door: self.inner.options.door.clone(),
            all_kinds: true,
            metadata: vec![metadata],
            ..v1::WriteContext::default()
        };
        let body = PeerEncoder::default().finish(tenant.as_str(), 1, false, Some(&context));
        match self.inner.exchange(body.into()).await? {
            Ok(_) => Ok(()),
            Err(status) => self.inner.verdicts_of_status(&status, 0).map(drop),
        }
    }
}

fn to_pb(one: &MetricMetadata) -> v1::MetricMetadata {
    v1::MetricMetadata {
        r#type: u32::from(one.meaning.kind.code()),
        metric: one.metric.clone(),
        help: one.meaning.help.clone(),
        unit: one.meaning.unit.clone(),
    }
}

fn from_pb(one: v1::MetricMetadata) -> MetricMetadata {
    let kind = u8::try_from(one.r#type).map(MetricKind::from_code).unwrap_or_default();
    MetricMetadata { metric: one.metric, meaning: Meaning { kind, help: one.help, unit: one.unit } }
}

/// What a request says of metrics, by tenant.
pub(super) fn read(
    context: Option<&mut v1::WriteContext>,
) -> Result<Vec<(TenantId, Vec<MetricMetadata>)>, Error> {
    let all = context.map(|context| std::mem::take(&mut context.metadata)).unwrap_or_default();
    let tenant = |one: v1::TenantMetadata| {
        let tenant = TenantId::new(&one.tenant)
            .map_err(|error| Error::with_source(model::Kind::Invalid, error.to_string(), error))?;
        Ok((tenant, one.metadata.into_iter().map(from_pb).collect()))
    };
    all.into_iter().map(tenant).collect()
}
