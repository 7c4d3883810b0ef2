//! Whatever a sender sends, it gets a clear answer, the valid part of it is kept, and nothing else is harmed.

use std::time::{SystemTime, UNIX_EPOCH};

use acceptance::{Answer, Program, Running, Said, When, ask, get, post};

struct Standalone {
    running: Running,
    url: String,
    _dir: tempfile::TempDir,
}

fn standalone() -> Standalone {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (program, url) = Program::standalone(dir.path());
    let mut running = program.start();
    running.wait_ready(&format!("{url}/-/ready"));
    Standalone { running, url, _dir: dir }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis() as i64
}

// --- just enough protobuf to write what a sender never would ---

fn uvarint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(value, &mut out);
    out
}

fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag][..], &uvarint(content.len() as u64), content].concat()
}

fn label(name: &str, value: &str) -> Vec<u8> {
    field(0x0a, &[field(0x0a, name.as_bytes()), field(0x12, value.as_bytes())].concat())
}

fn sample(value: f64, time: i64) -> Vec<u8> {
    field(0x12, &[&[0x09][..], &value.to_le_bytes(), &[0x10], &uvarint(time as u64)].concat())
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let labels = labels.iter().flat_map(|(n, v)| label(n, v));
    let samples = samples.iter().flat_map(|(t, v)| sample(*v, *t));
    field(0x0a, &labels.chain(samples).collect::<Vec<_>>())
}

fn snappy(raw: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(raw).expect("compress")
}

impl Standalone {
    fn raw(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut all = vec![("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        all.retain(|(name, _)| !headers.iter().any(|(n, _)| n == name));
        all.extend(headers);
        post(&format!("{}{path}", self.url), &all, body).expect("an answer")
    }

    fn write(&self, series: &[Vec<u8>]) -> Answer {
        self.raw("/api/v1/receive", &[], &snappy(&series.concat()))
    }

    fn values(&self, query: &str) -> Vec<f64> {
        match ask(&self.url, query, When::At(now_ms()), &[]) {
            Said::Series(series) => {
                series.into_values().flat_map(|p| p.into_iter().map(|(_, v)| v)).collect()
            }
            Said::Failed(error) => panic!("{query}: {error}"),
        }
    }
}

#[track_caller]
fn says(answer: &Answer, status: u16, words: &[&str]) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    for word in words {
        assert!(text.to_lowercase().contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn every_bad_input_gets_a_clear_answer_and_harms_nothing() {
    let s = standalone();
    let now = now_ms();
    let good = |name: &str| series(&[("__name__", name), ("job", "t")], &[(now - 1000, 1.0)]);

    // The good case, at all three paths.
    for (path, name) in [("/api/v1/receive", "a1"), ("/api/v1/write", "a2"), ("/api/v1/push", "a3")] {
        says(&s.raw(path, &[], &snappy(&good(name))), 204, &[]);
        assert_eq!(s.values(name), [1.0]);
    }
    // The same again is a success, never a conflict.
    says(&s.write(&[good("a1")]), 204, &[]);
    says(&s.raw("/api/v1/receive", &[], &snappy(&[])), 204, &[]);

    // The envelope.
    let body = snappy(&[good("b1"), good("b2")].concat());
    says(&s.raw("/api/v1/receive", &[], &body[..body.len() / 2]), 400, &["snappy"]);
    says(&s.raw("/api/v1/receive", &[], b"\xff\xff\xff\xff\x7fnonsense"), 400, &[]);
    let bomb = [&uvarint(3 << 30)[..], &[0xfe, 0xff, 0xff]].concat();
    let answer = s.raw("/api/v1/receive", &[], &bomb);
    assert!(matches!(answer.status, 400 | 413), "{}: {}", answer.status, answer.text());
    says(&s.raw("/api/v1/receive", &[], &snappy(b"this is no protobuf")), 400, &[]);
    says(&s.raw("/api/v1/receive", &[("content-encoding", "gzip")], &body), 415, &["snappy"]);
    says(&s.raw("/api/v1/receive", &[("content-type", "application/json")], &body), 415, &[]);
    assert!(s.values("b1").is_empty());

    // Unknown fields are none of our business.
    let unknown = [field(0x7a, b"future"), good("c1")].concat();
    says(&s.raw("/api/v1/receive", &[], &snappy(&unknown)), 204, &[]);
    assert_eq!(s.values("c1"), [1.0]);

    // Labels: the bad series is refused by name, its neighbours are kept.
    for (name, bad) in [
        ("d1", series(&[("job", "nameless")], &[(now, 1.0)])),
        ("d2", series(&[], &[(now, 1.0)])),
        ("d3", series(&[("__name__", "x"), ("a", "1"), ("a", "2")], &[(now, 1.0)])),
        ("d4", series(&[("__name__", "x"), ("", "1")], &[(now, 1.0)])),
    ] {
        says(&s.write(&[bad, good(name)]), 400, &["label"]);
        assert_eq!(s.values(name), [1.0], "{name}");
    }
    // An empty value is an absent label; labels in any order are sorted by us; any UTF-8 name is legal.
    says(&s.write(&[series(&[("z", "1"), ("__name__", "e1"), ("b", "")], &[(now, 2.0)])]), 204, &[]);
    assert_eq!(s.values("e1{z=\"1\",b=\"\"}"), [2.0]);
    says(&s.write(&[series(&[("__name__", "e.2 ü")], &[(now, 2.0)])]), 204, &[]);
    assert_eq!(s.values("{\"e.2 ü\"}"), [2.0]);

    // Values: all of them.
    says(
        &s.write(&[
            series(&[("__name__", "f1")], &[(now, f64::INFINITY)]),
            series(&[("__name__", "f2")], &[(now, f64::NEG_INFINITY)]),
            series(&[("__name__", "f3")], &[(now, f64::NAN)]),
        ]),
        204,
        &[],
    );
    assert_eq!(s.values("f1"), [f64::INFINITY]);
    assert!(s.values("f3")[0].is_nan());

    // Time: too old and too far ahead are refused, the rest of the same series is kept.
    let hour = 3_600_000;
    says(&s.write(&[series(&[("__name__", "g1")], &[(now + hour, 9.0), (now, 1.0)])]), 400, &["future"]);
    assert_eq!(s.values("g1"), [1.0]);
    says(&s.write(&[series(&[("__name__", "g1")], &[(now - 72 * hour, 9.0)])]), 400, &["old"]);
    // A late sample inside the window is welcome.
    says(&s.write(&[series(&[("__name__", "g1")], &[(now - hour, 0.5)])]), 204, &[]);
    assert_eq!(s.values("sum_over_time(g1[2h])"), [1.5]);
    // Another value for a time that has one is refused, and the first one stays.
    says(&s.write(&[series(&[("__name__", "g1")], &[(now, 7.0)])]), 400, &["duplicate"]);
    assert_eq!(s.values("g1"), [1.0]);

    // Tenants are names, never paths.
    for tenant in ["..", ".", "a/b", "../../etc"] {
        says(&s.raw("/api/v1/receive", &[("THANOS-TENANT", tenant)], &snappy(&good("h1"))), 400, &["tenant"]);
    }
    says(&s.raw("/api/v1/receive", &[("THANOS-TENANT", "team-a")], &snappy(&good("h1"))), 204, &[]);
    assert!(s.values("h1").is_empty(), "one tenant sees another's series");

    // A wrong path says the right one; a wrong method says so.
    says(&s.raw("/api/v1/remote_write", &[], &body), 404, &["/api/v1/receive"]);
    assert_eq!(get(&format!("{}/api/v1/receive", s.url)).expect("an answer").status, 405);

    // After all that, it still works, and leaves when asked.
    says(&s.write(&[good("z9")]), 204, &[]);
    assert_eq!(s.values("z9"), [1.0]);
    s.running.stop();
}

/// A request that says what metrics mean and has no sample is taken, and `/api/v1/metadata` says the same.
#[test]
fn metadata_alone_is_taken_and_told_t16() {
    let s = standalone();
    let said = |kind: u8, metric: &str, help: &str| {
        let parts = [&[0x08, kind][..], &field(0x12, metric.as_bytes()), &field(0x22, help.as_bytes())];
        field(0x1a, &parts.concat())
    };
    let body = [said(1, "requests_total", "What came."), said(2, "heat", "How hot it is.")].concat();
    says(&s.raw("/api/v1/receive", &[], &snappy(&body)), 204, &[]);
    let told = get(&format!("{}/api/v1/metadata", s.url)).expect("an answer");
    let heat = r#""heat":[{"type":"gauge","help":"how hot it is.","unit":""}]"#;
    says(&told, 200, &[heat, r#""requests_total":[{"type":"counter""#]);
    s.running.stop();
}
