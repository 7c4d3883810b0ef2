//! What metrics mean, asked of everybody who knows and made one answer.
//!
//! Owners keep a metric's metadata as they keep a series, so what one receiver lacks another says; answers are laid over
//! one another, each different word once.

use api::ReadParams;
use model::{Matcher, TenantId};
use rpc::facts::{Metadata, add_metadata, metadata_request, metadata_request_to_pb};
use rpc::{PeerInfo, Tell, Told};
use storage::{Context, Error, Meanings, MetadataRequest, PartialResponse};
use wire::pb::thanos as pb;

use crate::facts::{Asked, Everyone};

impl Everyone {
    /// Asks everybody. Where the request names a tenant, only those are listened to who tell tenants apart, or have
    /// nothing of others.
    fn meanings(
        &self,
        request: &MetadataRequest,
        store_matchers: &[Vec<Matcher>],
        partial: Option<bool>,
        context: &Context,
    ) -> Result<Meanings, Error> {
        let asked = Asked { store_matchers, partial, only: None, replica_labels: Vec::new() };
        let (found, notes) =
            self.ask::<Metadata>(&metadata_request_to_pb(request), &asked, |apis| apis.metadata, context)?;
        let mut all = Meanings { notes, ..Meanings::default() };
        for (endpoint, told) in found {
            let state = endpoint.state();
            let trusted = match (&request.tenant, &state.info) {
                (None, _) => true,
                (Some(tenant), Some(info)) => tells_apart(info, &self.queries.tenant_label, tenant),
                (Some(_), None) => false,
            };
            if trusted {
                // Everybody is listened to before the limit is applied: it then is the first by name.
                told.items.into_iter().for_each(|said| add_metadata(&mut all, said, None));
            }
        }
        if let Some(limit) = request.limit
            && let Some(first) = all.metrics.keys().nth(limit).cloned()
        {
            all.metrics.split_off(&first);
        }
        Ok(all)
    }

    /// For the HTTP API.
    pub fn metadata_over_http(
        &self,
        request: &MetadataRequest,
        read: &ReadParams,
        context: &Context,
    ) -> Result<Meanings, Error> {
        let tenant = self.enforced(read.tenant.as_deref())?;
        let request = MetadataRequest { tenant, ..request.clone() };
        self.meanings(&request, &read.store_matchers, read.partial_response, context)
    }
}

/// Whether a peer gives a tenant's metadata alone: our nodes read the tenant in the request.
fn tells_apart(info: &PeerInfo, tenant_label: &str, tenant: &TenantId) -> bool {
    let own = |set: &model::Labels| set.get(tenant_label) == Some(tenant.as_str());
    info.node.is_some() || (!info.label_sets.is_empty() && info.label_sets.iter().all(own))
}

impl Tell<Metadata> for Everyone {
    fn tell(
        &self,
        request: &pb::MetricMetadataRequest,
        tenant: Option<&str>,
        context: &Context,
    ) -> Result<Told<pb::MetricMetadata>, Error> {
        let mut request = metadata_request(request)?;
        if let Some(tenant) = self.enforced(tenant)? {
            request.tenant = Some(tenant);
        }
        let partial = Some(context.partial == PartialResponse::Warn);
        let found = self.meanings(&request, &[], partial, context)?;
        Ok(Told {
            items: vec![rpc::facts::metadata_to_pb(&found)],
            warnings: found.notes.warnings,
            held: None,
        })
    }
}
