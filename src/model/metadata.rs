//! What a metric is: its type, its help text and its unit, as its source says.

use std::fmt;

/// Type of a metric. The numbers are those of remote write and never change their meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MetricKind {
    #[default]
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    StateSet = 7,
}

impl MetricKind {
    pub const ALL: [MetricKind; 8] = [
        MetricKind::Unknown,
        MetricKind::Counter,
        MetricKind::Gauge,
        MetricKind::Histogram,
        MetricKind::GaugeHistogram,
        MetricKind::Summary,
        MetricKind::Info,
        MetricKind::StateSet,
    ];

    pub fn code(self) -> u8 {
        self as u8
    }

    /// What is invented beyond is unknown too.
    pub fn from_code(code: u8) -> MetricKind {
        MetricKind::ALL.into_iter().find(|kind| kind.code() == code).unwrap_or_default()
    }

    /// As Prometheus's API and OpenMetrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Unknown => "unknown",
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
        }
    }

    /// The opposite of [`MetricKind::as_str`]; what is invented beyond is unknown.
    pub fn from_name(name: &str) -> MetricKind {
        MetricKind::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or_default()
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is said of one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Meaning {
    pub kind: MetricKind,
    pub help: String,
    pub unit: String,
}

/// A metric (a family, without suffixes such as `_bucket`) and what is said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricMetadata {
    pub metric: String,
    pub meaning: Meaning,
}

impl MetricMetadata {
    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        self.metric.len() + self.meaning.help.len() + self.meaning.unit.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back() {
        for kind in MetricKind::ALL {
            assert_eq!(MetricKind::from_code(kind.code()), kind);
            assert_eq!(MetricKind::from_name(kind.as_str()), kind);
        }
        assert_eq!(MetricKind::from_code(200), MetricKind::Unknown);
        assert_eq!(MetricKind::from_name("gizmo"), MetricKind::Unknown);
    }
}
