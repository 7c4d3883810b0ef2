//! What remote write 2.0 says of metrics, alone and with everything else in one request.

use super::*;

const UP: &[(&str, &str)] = &[("__name__", "up")];

fn up() -> Two {
    two(UP).float(0, 1.0)
}

pub fn cases() -> Vec<Case> {
    let kind = |name, kind, line: &'static str| {
        case(name).sends(up().metadata(kind, "Help.", "s"), 204, wrote(1, 0, 0), "").stores(&["up 0:1", line])
    };
    vec![
        kind("unspecified", 0, r#"metadata up unknown "Help." "s""#),
        kind("counter", 1, r#"metadata up counter "Help." "s""#),
        kind("gauge", 2, r#"metadata up gauge "Help." "s""#),
        kind("histogram", 3, r#"metadata up histogram "Help." "s""#),
        kind("gauge_histogram", 4, r#"metadata up gaugehistogram "Help." "s""#),
        kind("summary", 5, r#"metadata up summary "Help." "s""#),
        kind("info", 6, r#"metadata up info "Help." "s""#),
        kind("state_set", 7, r#"metadata up stateset "Help." "s""#),
        kind("a_kind_of_the_future", 8, r#"metadata up unknown "Help." "s""#),
        case("empty_help")
            .sends(up().metadata(1, "", "s"), 204, wrote(1, 0, 0), "")
            .stores(&["up 0:1", r#"metadata up counter "" "s""#]),
        case("empty_unit")
            .sends(up().metadata(1, "Help.", ""), 204, wrote(1, 0, 0), "")
            .stores(&["up 0:1", r#"metadata up counter "Help." """#]),
        case("newline_in_help")
            .sends(up().metadata(1, "One.\nTwo.", ""), 204, wrote(1, 0, 0), "")
            .stores(&["up 0:1", r#"metadata up counter "One.\nTwo." """#]),
        case("on_a_histogram")
            .sends(two(UP).histogram(0, custom()).metadata(3, "Help.", ""), 204, wrote(0, 1, 0), "")
            .stores(&[
                "up 0:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}",
                r#"metadata up histogram "Help." """#,
            ]),
        case("of_two_metrics")
            .sends(
                up().metadata(2, "A.", "").and(&[("__name__", "down")]).float(0, 0.0).metadata(1, "B.", "s"),
                204,
                wrote(2, 0, 0),
                "",
            )
            .stores(&["down 0:0", "up 0:1", r#"metadata down counter "B." "s""#, r#"metadata up gauge "A." """#]),
        case("beside_many_labels")
            .sends(
                two(&[("z", "1"), ("__name__", "up"), ("ä", "ö ü"), ("b", "\"")]).float(0, 1.0).metadata(2, "A.", ""),
                204,
                wrote(1, 0, 0),
                "",
            )
            .stores(&[r#"up{b="\"", z="1", ä="ö ü"} 0:1"#, r#"metadata up gauge "A." """#]),
        case("without_a_name").sends(
            two(&[("a", "b")]).float(0, 1.0).metadata(1, "Help.", ""),
            400,
            wrote(0, 0, 0),
            "metric name is missing",
        ),
        case("with_an_empty_name").sends(
            two(&[("__name__", "")]).float(0, 1.0).metadata(1, "Help.", ""),
            400,
            wrote(0, 0, 0),
            "series has no labels",
        ),
        case("reference_out_of_range").sends(
            up().metadata(1, "Help.", "").with(|s| {
                if let Some(metadata) = &mut s.metadata {
                    metadata.help_ref = 99;
                }
            }),
            400,
            wrote(0, 0, 0),
            "a reference of the metadata lies outside of the symbol table",
        ),
        case("metadata_without_data")
            .sends(two(UP).metadata(1, "Help.", ""), 204, wrote(0, 0, 0), "")
            .stores(&[r#"metadata up counter "Help." """#]),
        together(),
        many_samples(),
        many_histograms(),
    ]
}

/// Families of every kind in one request, an emoji among their labels.
fn together() -> Case {
    case("everything_in_one_request")
        .sends(
            two(&[("__name__", "requests_total"), ("path", "/🚀")])
                .float(0, 7.0)
                .metadata(1, "Requests.", "")
                .exemplar(0, 1.0, &[("trace_id", "a")])
                .and(&[("__name__", "temperature")])
                .float(0, -3.5)
                .float(1, -4.5)
                .metadata(2, "Outside.", "celsius")
                .and(&[("__name__", "latency")])
                .histogram(0, custom())
                .metadata(3, "Latency.", "s")
                .exemplar(0, 0.3, &[("trace_id", "b")]),
            204,
            wrote(3, 1, 2),
            "",
        )
        .stores(&[
            "latency 0:{count 10 sum 7.25 schema -53 +0=1 +1=2 +2=1 +3=3 +4=1 +5=2 bounds [0.1, 0.5, 1.0, 2.5, 5.0, 10.0]}",
            "requests_total{path=\"/🚀\"} 0:7",
            "temperature 0:-3.5 1:-4.5",
            r#"exemplar latency 0:0.3 {trace_id="b"}"#,
            r#"exemplar requests_total{path="/🚀"} 0:1 {trace_id="a"}"#,
            r#"metadata latency histogram "Latency." "s""#,
            r#"metadata requests_total counter "Requests." """#,
            r#"metadata temperature gauge "Outside." "celsius""#,
        ])
}

fn leaked(lines: impl Iterator<Item = String>) -> Vec<&'static str> {
    lines.map(|line| &*Box::leak(line.into_boxed_str())).collect()
}

fn fifty(add: impl Fn(Two, f64) -> Two) -> Two {
    let mut all = None;
    for n in 0..50 {
        let text = format!("{n:02}");
        let labels = [("__name__", "m"), ("n", text.as_str())];
        let next = match all.take() {
            None => two(&labels),
            Some(before) => Two::and(before, &labels),
        };
        all = Some(add(next, f64::from(n)).exemplar(0, f64::from(n), &[("t", "x")]));
    }
    all.unwrap()
}

fn many_samples() -> Case {
    let floats = (0..50).map(|n| format!("m{{n=\"{n:02}\"}} 0:{n}"));
    let exemplars = (0..50).map(|n| format!("exemplar m{{n=\"{n:02}\"}} 0:{n} {{t=\"x\"}}"));
    let lines = leaked(floats.chain(exemplars));
    case("fifty_floats_with_exemplars")
        .sends(fifty(|s, v| s.float(0, v)), 204, wrote(50, 0, 50), "")
        .stores(&lines)
}

fn many_histograms() -> Case {
    let shown = "{count 10 sum 18.5 schema 1 zero 1@0.001 +0=2 +2=3 -0=4}";
    let histograms = (0..50).map(|n| format!("m{{n=\"{n:02}\"}} 0:{shown}"));
    let exemplars = (0..50).map(|n| format!("exemplar m{{n=\"{n:02}\"}} 0:{n} {{t=\"x\"}}"));
    let lines = leaked(histograms.chain(exemplars));
    case("fifty_histograms_with_exemplars")
        .sends(fifty(|s, _| s.histogram(0, histogram())), 204, wrote(0, 50, 50), "")
        .stores(&lines)
}
