//! The subjects, each in the words of its own service.

use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use wire::pb::thanos as pb;

use super::{FactMethod, Frame, Subject};
use crate::channel::MAX_MESSAGE;
use crate::metrics;

macro_rules! subject {
    (
        $(#[$doc:meta])* $name:ident: $request:ident -> $response:ident { $result:ident :: $item_field:ident ($item:ident) },
        $client:ident :: $client_type:ident . $method:ident, $metric:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Subject for $name {
            type Request = pb::$request;
            type Response = pb::$response;
            type Item = pb::$item;

            const METHOD: FactMethod = FactMethod(metrics::$metric);

            async fn call(
                channel: Channel,
                request: Request<pb::$request>,
            ) -> Result<Response<Streaming<pb::$response>>, Status> {
                let client = pb::$client::$client_type::new(channel);
                client.max_decoding_message_size(MAX_MESSAGE).$method(request).await
            }

            fn read(response: pb::$response) -> Option<Frame<pb::$item>> {
                match response.result? {
                    pb::$result::Result::$item_field(item) => Some(Frame::Item(item)),
                    pb::$result::Result::Warning(text) => Some(Frame::Warning(text)),
                }
            }

            fn write(frame: Frame<pb::$item>) -> pb::$response {
                let result = match frame {
                    Frame::Item(item) => pb::$result::Result::$item_field(item),
                    Frame::Warning(text) => pb::$result::Result::Warning(text),
                };
                pb::$response { result: Some(result) }
            }

            fn strategy(request: &mut pb::$request) -> &mut i32 {
                &mut request.partial_response_strategy
            }
        }
    };
}

subject! {
    /// Rule groups with their alerts.
    Rules: RulesRequest -> RulesResponse { rules_response::Group(RuleGroup) },
    rules_client::RulesClient.rules, RULES
}
subject! {
    /// Scrape targets.
    Targets: TargetsRequest -> TargetsResponse { targets_response::Targets(TargetDiscovery) },
    targets_client::TargetsClient.targets, TARGETS
}
subject! {
    /// Exemplars of the series that a query selects.
    Exemplars: ExemplarsRequest -> ExemplarsResponse { exemplars_response::Data(ExemplarData) },
    exemplars_client::ExemplarsClient.exemplars, EXEMPLARS
}
subject! {
    /// Type, help and unit of metrics.
    Metadata: MetricMetadataRequest -> MetricMetadataResponse { metric_metadata_response::Metadata(MetricMetadata) },
    metadata_client::MetadataClient.metric_metadata, METADATA
}
subject! {
    /// What heads are made of, tenant by tenant.
    Statistics: TsdbStatisticsRequest -> TsdbStatisticsResponse { tsdb_statistics_response::Statistics(TsdbStatistics) },
    status_client::StatusClient.tsdb_statistics, STATISTICS
}
