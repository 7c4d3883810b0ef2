//! What metrics mean, between our values and the messages of Thanos's Metadata service.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Kind, Meaning, MetricKind, MetricMetadata, TenantId};
use storage::{Context, Error, Meanings, MetadataRequest, MetadataSource};
use wire::pb::thanos as pb;

use super::{Metadata, Tell, Told};

/// Serves the metadata of somebody who has it.
pub struct Meaningful(pub Arc<dyn MetadataSource>);

impl Tell<Metadata> for Meaningful {
    /// Of the tenant in the request, which is ours and set where tenancy is enforced; not of the one in the call's
    /// metadata, which Thanos's queriers send without meaning to see only that one.
    fn tell(
        &self,
        request: &pb::MetricMetadataRequest,
        _: Option<&str>,
        context: &Context,
    ) -> Result<Told<pb::MetricMetadata>, Error> {
        let found = self.0.metadata(&metadata_request(request)?, context)?;
        Ok(Told { items: vec![metadata_to_pb(&found)], warnings: found.notes.warnings, held: None })
    }
}

/// A request as a caller wrote it. A negative limit is none, as in Thanos.
pub fn metadata_request(pb: &pb::MetricMetadataRequest) -> Result<MetadataRequest, Error> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let tenant = |text: String| {
        TenantId::new(&text).map_err(|error| Error::with_source(Kind::Invalid, error.to_string(), error))
    };
    Ok(MetadataRequest {
        tenant: some(&pb.tenant).map(tenant).transpose()?,
        metric: some(&pb.metric),
        limit: usize::try_from(pb.limit).ok(),
    })
}

/// A request for a peer.
pub fn metadata_request_to_pb(request: &MetadataRequest) -> pb::MetricMetadataRequest {
    pb::MetricMetadataRequest {
        metric: request.metric.clone().unwrap_or_default(),
        limit: request.limit.map_or(-1, |limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        partial_response_strategy: 0,
        tenant: request.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()).unwrap_or_default(),
    }
}

/// An answer as Thanos writes it.
pub fn metadata_to_pb(found: &Meanings) -> pb::MetricMetadata {
    let one = |meaning: &Meaning| pb::Meta {
        r#type: meaning.kind.as_str().to_owned(),
        help: meaning.help.clone(),
        unit: meaning.unit.clone(),
    };
    let entry = |all: &Vec<Meaning>| pb::MetricMetadataEntry { metas: all.iter().map(one).collect() };
    let metadata: HashMap<_, _> =
        found.metrics.iter().map(|(name, all)| (name.clone(), entry(all))).collect();
    pb::MetricMetadata { metadata }
}

/// Adds what a peer said, each different thing once, in the order of names; no more than `limit` metrics.
pub fn add_metadata(into: &mut Meanings, said: pb::MetricMetadata, limit: Option<usize>) {
    let mut all: Vec<_> = said.metadata.into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (metric, entry) in all {
        for meta in entry.metas {
            let meaning =
                Meaning { kind: MetricKind::from_name(&meta.r#type), help: meta.help, unit: meta.unit };
            into.add(MetricMetadata { metric: metric.clone(), meaning }, limit);
        }
    }
}
