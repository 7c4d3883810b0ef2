//! OpenTelemetry's names and units as Prometheus names.
//!
//! Source: Prometheus 3's `otlp.translation_strategy` and the OpenTelemetry specification, "Prometheus and OpenMetrics
//! compatibility".

use std::borrow::Cow;

/// How names become Prometheus names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Translation {
    /// `http.duration` in seconds becomes `http_duration_seconds`; Prometheus's default.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// `http_duration`.
    UnderscoreEscapingWithoutSuffixes,
    /// `http.duration_seconds`.
    NoUtf8EscapingWithSuffixes,
    /// `http.duration`.
    NoTranslation,
}

impl Translation {
    pub const ALL: [(&'static str, Translation); 4] = [
        ("UnderscoreEscapingWithSuffixes", Translation::UnderscoreEscapingWithSuffixes),
        ("UnderscoreEscapingWithoutSuffixes", Translation::UnderscoreEscapingWithoutSuffixes),
        ("NoUTF8EscapingWithSuffixes", Translation::NoUtf8EscapingWithSuffixes),
        ("NoTranslation", Translation::NoTranslation),
    ];

    pub fn from_name(name: &str) -> Option<Translation> {
        Translation::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, translation)| translation)
    }

    fn escapes(self) -> bool {
        matches!(
            self,
            Translation::UnderscoreEscapingWithSuffixes | Translation::UnderscoreEscapingWithoutSuffixes
        )
    }

    fn adds_suffixes(self) -> bool {
        matches!(self, Translation::UnderscoreEscapingWithSuffixes | Translation::NoUtf8EscapingWithSuffixes)
    }
}

/// What the suffixes of a name depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Other,
}

/// Prometheus's word for a unit of the Unified Code for Units of Measure.
const UNITS: [(&str, &str); 29] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("KB", "kilobytes"),
    ("MB", "megabytes"),
    ("GB", "gigabytes"),
    ("TB", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// The same behind "per".
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn word<'a>(table: &[(&'static str, &'static str)], unit: &'a str) -> Cow<'a, str> {
    match table.iter().find(|(short, _)| *short == unit) {
        Some((_, word)) => Cow::Borrowed(word),
        None => Cow::Borrowed(unit),
    }
}

/// A metric's name, without the `_bucket`, `_sum` and so on of its series; none if nothing is left of it.
pub fn metric(name: &str, unit: &str, kind: Kind, translation: Translation) -> Option<String> {
    let (main, per) = match translation.adds_suffixes() {
        true => unit_words(unit, translation.escapes()),
        false => (String::new(), String::new()),
    };
    let total = translation.adds_suffixes() && kind == Kind::Counter;
    let ratio = translation.adds_suffixes() && kind == Kind::Gauge && unit.trim() == "1";
    let out = match (translation.escapes(), translation.adds_suffixes()) {
        (true, true) => tokens_joined(name, &main, &per, total, ratio),
        (true, false) => escaped_metric(name),
        (false, _) => suffixed(name, &main, &per, total, ratio),
    };
    (!out.is_empty()).then_some(out)
}

/// Words for a unit and for what it is per; empty where there is none or it is an annotation in braces.
fn unit_words(unit: &str, escape: bool) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let clean = |text: &str| -> String {
        match escape {
            false => text.to_owned(),
            true => text
                .split(|c: char| !c.is_ascii_alphanumeric())
                .filter(|t| !t.is_empty())
                .collect::<Vec<_>>()
                .join("_"),
        }
    };
    let wanted = |text: &str| !text.is_empty() && text != "1" && !text.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if wanted(main) { clean(&word(&UNITS, main)) } else { String::new() };
    let per = if wanted(per) { clean(&word(&PER_UNITS, per)) } else { String::new() };
    (main, per)
}

/// The name's words, then those of its unit that are not among them, joined by underscores.
fn tokens_joined(name: &str, main: &str, per: &str, total: bool, ratio: bool) -> String {
    let keeps = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut tokens: Vec<&str> = name.split(|c: char| !keeps(c)).filter(|t| !t.is_empty()).collect();
    let add = |tokens: &mut Vec<&str>, words: &[&'static str]| tokens.extend_from_slice(words);
    if !main.is_empty() && !tokens.contains(&main) {
        tokens.push(main);
    }
    if !per.is_empty() && !tokens.contains(&per) {
        add(&mut tokens, &["per"]);
        tokens.push(per);
    }
    if total {
        tokens.retain(|t| *t != "total");
        add(&mut tokens, &["total"]);
    }
    if ratio {
        tokens.retain(|t| *t != "ratio");
        add(&mut tokens, &["ratio"]);
    }
    let joined = tokens.join("_");
    match joined.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{joined}"),
        false => joined,
    }
}

fn escaped_metric(name: &str) -> String {
    let keeps = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '_';
    let mut out: String = name.chars().map(|c| if keeps(c) { c } else { '_' }).collect();
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// The name as it is, with suffixes that it does not have yet.
fn suffixed(name: &str, main: &str, per: &str, total: bool, ratio: bool) -> String {
    let mut out = name.to_owned();
    // What is added comes before a suffix that is there already.
    let end = if total {
        "_total"
    } else if ratio {
        "_ratio"
    } else {
        ""
    };
    if !end.is_empty() {
        out.truncate(out.strip_suffix(end).unwrap_or(&out).len());
    }
    if !main.is_empty() && !out.ends_with(main) {
        out.push('_');
        out.push_str(main);
    }
    if !per.is_empty() {
        let per = format!("_per_{per}");
        if !out.ends_with(&per) {
            out.push_str(&per);
        }
    }
    out.push_str(end);
    out
}

/// A label's name; none for an empty one.
pub fn label(name: &str, translation: Translation) -> Option<Cow<'_, str>> {
    if name.is_empty() {
        return None;
    }
    if !translation.escapes() {
        return Some(Cow::Borrowed(name));
    }
    let keeps = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let plain = name.chars().all(keeps);
    let first = name.as_bytes()[0];
    let is_private = first == b'_' && !name.starts_with("__");
    if plain && !first.is_ascii_digit() && !is_private {
        return Some(Cow::Borrowed(name));
    }
    let mut out = String::with_capacity(name.len() + 4);
    if first.is_ascii_digit() {
        out.push_str("key_");
    }
    let mut last = None;
    for c in name.chars() {
        let c = if keeps(c) { c } else { '_' };
        // Runs of what was escaped become one underscore.
        if c == '_' && last == Some('_') && !name.starts_with("__") {
            continue;
        }
        out.push(c);
        last = Some(c);
    }
    // Underscores alone say nothing.
    if out.bytes().all(|b| b == b'_') {
        return None;
    }
    if out.starts_with('_') && !out.starts_with("__") {
        out.insert_str(0, "key");
    }
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(name: &str, unit: &str, kind: Kind) -> String {
        metric(name, unit, kind, Translation::default()).unwrap_or_default()
    }

    #[test]
    fn names_get_units_and_types() {
        for (name, unit, kind, want) in [
            ("http.server.duration", "ms", Kind::Other, "http_server_duration_milliseconds"),
            ("system.cpu.time", "s", Kind::Counter, "system_cpu_time_seconds_total"),
            ("system.io.total", "By", Kind::Counter, "system_io_bytes_total"),
            ("memory.bytes", "By", Kind::Gauge, "memory_bytes"),
            ("cpu.load", "1", Kind::Gauge, "cpu_load_ratio"),
            ("cpu.load", "1", Kind::Counter, "cpu_load_total"),
            ("network.speed", "By/s", Kind::Gauge, "network_speed_bytes_per_second"),
            ("requests", "{request}", Kind::Counter, "requests_total"),
            ("requests", "{request}/m", Kind::Gauge, "requests_per_minute"),
            ("odd", "furlong/fortnight", Kind::Gauge, "odd_furlong_per_fortnight"),
            ("2xx.answers", "", Kind::Gauge, "_2xx_answers"),
            ("a::b  c", "", Kind::Gauge, "a::b_c"),
            ("température", "Cel", Kind::Gauge, "temp_rature_celsius"),
        ] {
            assert_eq!(default(name, unit, kind), want, "{name} in {unit}");
        }
        assert_eq!(metric("...", "", Kind::Gauge, Translation::default()), None);
    }

    #[test]
    fn the_other_strategies() {
        let of = |translation| metric("http.server.time", "s", Kind::Counter, translation).unwrap();
        assert_eq!(of(Translation::UnderscoreEscapingWithoutSuffixes), "http_server_time");
        assert_eq!(of(Translation::NoUtf8EscapingWithSuffixes), "http.server.time_seconds_total");
        assert_eq!(of(Translation::NoTranslation), "http.server.time");
        for (name, translation) in Translation::ALL {
            assert_eq!(Translation::from_name(name), Some(translation));
        }
        assert_eq!(Translation::from_name("nosuch"), None);
        let again = metric("a.seconds_total", "s", Kind::Counter, Translation::NoUtf8EscapingWithSuffixes);
        assert_eq!(again.as_deref(), Some("a.seconds_total"));
    }

    #[test]
    fn label_names() {
        let of = |name| label(name, Translation::default()).map(|l| l.into_owned());
        assert_eq!(of("http.method").as_deref(), Some("http_method"));
        assert_eq!(of("plain_one").as_deref(), Some("plain_one"));
        assert_eq!(of("5xx").as_deref(), Some("key_5xx"));
        assert_eq!(of("_private").as_deref(), Some("key_private"));
        assert_eq!(of("__internal").as_deref(), Some("__internal"));
        assert_eq!(of("a..b").as_deref(), Some("a_b"));
        assert_eq!(of(""), None);
        assert_eq!(of("..."), None);
        assert_eq!(label("http.method", Translation::NoTranslation).as_deref(), Some("http.method"));
    }
}
