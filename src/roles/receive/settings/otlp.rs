//! What may be tuned of OTLP.

use settings::settings;
use wire::otlp::Translation;

settings! {
    /// OTLP.
    pub struct Otlp {
        /// Resource attribute that becomes a label of every series, e.g. k8s.pod.name. May be given several times;
        /// the others are found by a join with target_info.
        ["receive.otlp-promote-resource-attributes"] promote: Vec<String> = Vec::new();
        /// Whether every resource attribute becomes a label of every series. Attributes that change make new series.
        ["receive.otlp-promote-all-resource-attributes"] promote_all: bool = false;
        /// Whether the attributes of a resource are stored as the series target_info.
        ["receive.otlp-enable-target-info"] target_info: bool = true;
        /// Whether target_info repeats service.name, service.namespace and service.instance.id, of which job and
        /// instance are made.
        ["receive.otlp-keep-identifying-resource-attributes"] keep_identifying: bool = false;
        /// Whether name, version and attributes of the instrumentation scope become labels otel_scope_....
        ["receive.otlp-promote-scope-metadata"] promote_scope: bool = false;
        /// How names are made, as in Prometheus: UnderscoreEscapingWithSuffixes,
        /// UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation. A change makes new series.
        ["receive.otlp-translation-strategy"] strategy: String = "UnderscoreEscapingWithSuffixes".to_owned();
        /// Whether histograms with explicit bounds become native histograms with custom buckets instead of classic
        /// series.
        ["receive.otlp-convert-histograms-to-nhcb"] nhcb: bool = false;
        /// Whether points of delta temporality are stored as they are. Otherwise they are refused: rate() and the
        /// like expect cumulative counts.
        ["receive.otlp-native-delta-ingestion"] delta: bool = false;
    }
}

impl Otlp {
    fn strategy(&self) -> Result<Translation, String> {
        Translation::from_name(&self.strategy).ok_or_else(|| {
            let known = Translation::ALL.map(|(name, _)| name).join(", ");
            format!("--receive.otlp-translation-strategy: {:?} is none of {known}", self.strategy)
        })
    }

    /// What the door goes by.
    pub fn translation(&self) -> wire::otlp::Settings {
        wire::otlp::Settings {
            translation: self.strategy().unwrap_or_default(),
            promote_resource_attributes: self.promote.clone(),
            promote_all_resource_attributes: self.promote_all,
            target_info: self.target_info,
            keep_identifying_resource_attributes: self.keep_identifying,
            promote_scope_metadata: self.promote_scope,
            convert_histograms_to_nhcb: self.nhcb,
            native_delta_ingestion: self.delta,
            ..wire::otlp::Settings::default()
        }
    }
}
