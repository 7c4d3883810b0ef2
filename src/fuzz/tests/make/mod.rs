//! Seeds that code makes: small and valid, one or two of everything that a format knows.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk::histogram::{At, encode_floats, encode_ints, with_starts};
use model::histogram::{Histogram, ResetHint, Span};
use model::{Labels, Sample, TenantId};
use prost::Message;
use storage::{Append, Verdict, WriteBatch};
use testkit::MemDisk;
use wire::pb::io::prometheus::write::v2;
use wire::remote_write::{PeerEncoder, compress, encode_v1};

type Seed = (&'static str, &'static str, Vec<u8>);

/// Target, name and content.
pub fn all() -> Vec<Seed> {
    let mut out = bodies();
    out.extend(rpc::peer::proof::seeds().into_iter().map(|(name, frame)| ("peer_frames", name, frame)));
    out.extend(chunks());
    out.extend(files());
    out.extend(logs());
    out.extend(texts());
    out
}

fn samples(n: i64) -> Vec<Sample> {
    let value = |i: i64| {
        [i as f64, 0.1 * i as f64, f64::NAN, f64::from_bits(0x7ff0_0000_0000_0002)][(i % 4) as usize]
    };
    (0..n).map(|i| Sample { timestamp: 1_700_000_000_000 + i * 15_000 + i % 3, value: value(i) }).collect()
}

fn version_one(names: &[&str], n: i64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_v1(names.iter().map(|name| ([("__name__", *name), ("job", "é")], samples(n))), &mut out);
    out
}

fn bodies() -> Vec<Seed> {
    let (few, many) = (version_one(&["a", "b"], 2), version_one(&["a", "b", "c", "up"], 5));
    let faulty = version_one(&["", "a", "a", &"x".repeat(130)], 1);
    let mut peer = PeerEncoder::default();
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "x")]).unwrap();
    peer.push(labels.as_bytes(), &samples(3));
    let mut by_tenant = PeerEncoder::default();
    by_tenant.push(labels.as_bytes(), &samples(1));
    let framed = |flags: &[u8], bodies: &[&[u8]]| -> Vec<u8> {
        let one =
            |(flags, body): (&u8, &&[u8])| [&[*flags][..], &(body.len() as u16).to_le_bytes(), body].concat();
        flags.iter().zip(bodies).flat_map(one).collect()
    };
    vec![
        ("snappy", "few", compress(&few).unwrap()),
        ("snappy", "repeats", compress(&[7; 3000]).unwrap()),
        ("snappy", "empty", compress(&[]).unwrap()),
        ("remote_write", "few", few.clone()),
        ("remote_write", "many", many.clone()),
        ("remote_write", "faulty", faulty.clone()),
        ("remote_write_v2", "all", version_two()),
        ("otlp", "json", [&[1], OTLP.as_bytes()].concat()),
        ("otlp", "protobuf", [&[0][..], &otlp_body()].concat()),
        ("otlp", "converted", [&[0b1110_1100][..], &otlp_body()].concat()),
        ("peer_write", "one", peer.finish("t", 1, false, None)),
        ("peer_write", "by_tenant", by_tenant.finish("t", 2, true, None)),
        ("recognised", "again", framed(&[4, 4, 1, 2], &[&few, &many, &few, &many])),
        ("recognised", "flags", framed(&[12, 24, 31], &[&few, &faulty, &many])),
    ]
}

/// A point or two of every kind.
const OTLP: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"shop"}},{"key":"a.b","value":{"arrayValue":{"values":[{"intValue":"3"}]}}}]},
"scopeMetrics":[{"scope":{"name":"s","version":"1","attributes":[{"key":"k","value":{"boolValue":true}}]},"metrics":[
{"name":"temp.now","unit":"Cel","gauge":{"dataPoints":[{"timeUnixNano":"1700000000000000000","asDouble":1.5}]}},
{"name":"hits","description":"d","unit":"1","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[
{"startTimeUnixNano":"1600000000000000000","timeUnixNano":"1700000000000000000","asInt":"7","attributes":[
{"key":"x","value":{"doubleValue":0.5}}],"exemplars":[{"timeUnixNano":"1","asDouble":2,"traceId":"5b8efff798038103d269b633813fc60c"}]},
{"timeUnixNano":"1700000000000000000","flags":1}]}},
{"name":"lat","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"1700000000000000000",
"count":"3","sum":2.5,"bucketCounts":["1","2"],"explicitBounds":[0.5]}]}},
{"name":"exp","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"1700000000000000000","count":"4",
"sum":3,"scale":9,"zeroCount":"1","positive":{"offset":-2,"bucketCounts":["1","0","2"]},"negative":{"offset":1,"bucketCounts":[]}}]}},
{"name":"old","summary":{"dataPoints":[{"timeUnixNano":"1700000000000000000","count":"2","sum":1,
"quantileValues":[{"quantile":0.5,"value":1}]}]}}]}]}]}"#;

fn otlp_body() -> Vec<u8> {
    wire::otlp::decode_json(OTLP.as_bytes()).unwrap().encode_to_vec()
}

fn version_two() -> Vec<u8> {
    let symbols = ["", "__name__", "up", "job", "x", "help", "s"].map(str::to_owned).to_vec();
    let histogram = v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(6)),
        sum: 3.5,
        schema: 2,
        zero_threshold: 0.001,
        zero_count: Some(v2::histogram::ZeroCount::ZeroCountInt(1)),
        positive_spans: vec![v2::BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![2, 1],
        timestamp: 1_700_000_000_000,
        ..Default::default()
    };
    let custom = v2::Histogram {
        count: Some(v2::histogram::Count::CountFloat(3.0)),
        schema: -53,
        positive_spans: vec![v2::BucketSpan { offset: 0, length: 2 }],
        positive_counts: vec![1.0, 2.0],
        custom_values: vec![0.5],
        timestamp: 1_700_000_000_001,
        ..Default::default()
    };
    let series = v2::TimeSeries {
        labels_refs: vec![1, 2, 3, 4],
        samples: vec![v2::Sample { timestamp: 5, value: 1.0, start_timestamp: 2 }],
        histograms: vec![histogram, custom],
        exemplars: vec![v2::Exemplar { labels_refs: vec![3, 4], value: 1.0, timestamp: 5 }],
        metadata: Some(v2::Metadata { r#type: 1, help_ref: 5, unit_ref: 6 }),
    };
    v2::Request { symbols, timeseries: vec![series.clone(), series] }.encode_to_vec()
}

fn chunks() -> Vec<Seed> {
    let xor = |n| chunk::xor::encode(samples(n)).unwrap();
    let histogram = |i: i64, schema: i32| Histogram {
        schema,
        zero_threshold: 0.001,
        zero_count: i as u64,
        count: 5 * i as u64 + 3,
        sum: i as f64 * 1.5,
        hint: ResetHint::Unknown,
        positive_spans: vec![Span { offset: 1, length: 2 }, Span { offset: 2, length: 1 }],
        positive_deltas: vec![i, 1, 0],
        custom_values: Arc::new([]),
        ..Histogram::default()
    };
    let row = |schema| {
        (0..6).map(move |i| At { timestamp: 1_700_000_000_000 + i * 15_000, histogram: histogram(i, schema) })
    };
    let ints = encode_ints(row(1), 120).unwrap();
    let floats = encode_floats(
        row(3).map(|at| At { timestamp: at.timestamp, histogram: at.histogram.to_float() }),
        120,
    )
    .unwrap();
    let xor2 = |of: fn(i64) -> i64| {
        let started = samples(30).into_iter().zip(0..).map(|(s, i)| (s, of(i)));
        chunk::xor2::encode(started).unwrap()
    };
    let starts: Vec<i64> = [0, 0, 1_699_999_000_000, 1_699_999_000_000, 1_700_000_030_000, 5].to_vec();
    vec![
        ("xor2", "none", xor2(|_| 0)),
        ("xor2", "one", xor2(|_| 1_699_999_000_000)),
        ("xor2", "late", xor2(|i| if i < 9 { 0 } else { 1_700_000_000_000 + i * 7 })),
        ("histogram_start", "ints", with_starts(&ints[0], &starts).unwrap().bytes.to_vec()),
        ("histogram_start", "floats", with_starts(&floats[0], &starts).unwrap().bytes.to_vec()),
        ("xor", "one", xor(1)),
        ("xor", "many", xor(40)),
        ("histogram", "ints", ints[0].bytes.to_vec()),
        ("histogram", "floats", floats[0].bytes.to_vec()),
    ]
}

fn files() -> Vec<Seed> {
    let block =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../block/testdata/golden/01HQ3ZK8G0000000000000000A");
    let read = |name: &str| std::fs::read(block.join(name)).unwrap();
    let (index, segment) = (read("index"), read("chunks/000001"));
    // A section's body begins behind its length and ends before its sum.
    let body = |at: usize| -> Vec<u8> {
        let len = u32::from_be_bytes(index[at..at + 4].try_into().unwrap()) as usize;
        index[at + 4..at + 4 + len].to_vec()
    };
    let toc: Vec<u64> = index[index.len() - 52..index.len() - 4]
        .chunks(8)
        .map(|c| u64::from_be_bytes(c.try_into().unwrap()))
        .collect();
    let (symbols, series, postings, table) =
        (toc[0] as usize, toc[1] as usize, toc[4] as usize, toc[5] as usize);
    // Series 1, from 2000, all the way to its edges.
    let tombstones = [&[1u8, 0xd0, 0x1f, 0x80, 0x40][..], &[2, 0, 2]].concat();
    vec![
        ("index", "symbols", body(symbols)),
        ("index", "postings", body(postings)),
        ("index", "table", body(table)),
        ("index", "series", index[series + 1..series + 1 + usize::from(index[series])].to_vec()),
        ("index_file", "golden", index.clone()),
        ("chunk_file", "golden", segment[8..].to_vec()),
        ("chunk_file", "head", segment),
        ("meta", "golden", read("meta.json")),
        ("tombstones", "two", tombstones),
        ("tombstones", "none", Vec::new()),
    ]
}

/// A day in the life of an engine, as the records of its log.
fn records() -> Vec<(u8, Vec<u8>)> {
    let disk = MemDisk::new();
    let now = 1_700_000_000_000;
    let (world, _) = testkit::world(Arc::new(disk.clone()), now, 1);
    let settings = tsdb::Settings {
        dir: PathBuf::from("/data"),
        shards: 2,
        segment_bytes: 16 << 10,
        ..Default::default()
    };
    let tsdb = tsdb::Tsdb::open(world.clone(), settings).unwrap();
    let tenant = TenantId::new("t").unwrap();
    for round in 0..3 {
        let mut batch = WriteBatch::default();
        for name in ["a", "b", "c"] {
            let labels = Labels::from_pairs([("__name__", name)]).unwrap();
            let sample = Sample { timestamp: now + round, value: round as f64 };
            batch.push(labels.as_bytes(), labels.placement_hash(tenant.as_str()), [sample]);
        }
        let mut verdicts = vec![Verdict::Unavailable; 3];
        tsdb.append(&tenant, &batch, &[0, 1, 2], now, &mut verdicts).unwrap();
        if round == 1 {
            tsdb.cut(now, true).unwrap();
        }
    }
    tsdb.close().unwrap();
    drop(tsdb);
    const ANY: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let settings = wal::Settings {
        dir: PathBuf::from("/data/wal"),
        segment_bytes: 16 << 10,
        queue_bytes: 1 << 20,
        mode: wal::Mode::Durable,
        known_kinds: ANY,
    };
    let mut out = Vec::new();
    wal::Log::open::<wal::Error>(&world, settings, &mut |entry| {
        out.push((entry.kind, entry.payload.to_vec()));
        Ok(())
    })
    .unwrap();
    out
}

fn logs() -> Vec<Seed> {
    let mut payloads = Vec::new();
    for (kind, payload) in records().iter().filter(|(_, payload)| payload.len() < 256) {
        payloads.extend([*kind, payload.len() as u8]);
        payloads.extend_from_slice(payload);
    }
    let mut framed = vec![1u8];
    for (kind, payload, unsynced) in
        [(1u8, &b"one"[..], 1u8), (2, b"two", 1), (200, b"skipped", 2), (1, b"", 1)]
    {
        framed.extend([kind, payload.len() as u8, 0, unsynced]);
        framed.extend_from_slice(payload);
    }
    let torn = [&framed[..], &[9, 200, 9, 1, b'T', b'W', 1, 1]].concat();
    vec![
        ("wal_payloads", "life", payloads),
        ("wal", "framed", framed),
        ("wal", "torn", torn),
        ("wal", "raw", [&[0u8][..], b"TW\x01\x01\x02\0\0\0"].concat()),
        ("wal", "header", [&[2u8][..], b"TRIBWAL\n\x02\0\0\0"].concat()),
    ]
}

fn texts() -> Vec<Seed> {
    let ring = |name: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hashring").join(name)).unwrap()
    };
    let query = |text: &str| text.as_bytes().to_vec();
    let limits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/limits.yaml");
    let rules = "- {source_labels: [job, a.b], separator: '-', regex: '(.+)-(x|y)', target_label: '$2_n', replacement: '${1}z'}\n\
                 - {action: labelmap, regex: 'n(.*)', replacement: 'm_$1'}\n- {action: hashmod, source_labels: [job], \
                 modulus: 8, target_label: part}\n- {action: drop, source_labels: [part], regex: 9}\n\
                 - {action: labeldrop, regex: 'tmp|é'}\n--- \njob=a-x\n__name__=up\nn1=2\né=3";
    vec![
        ("limits", "example", std::fs::read(limits).unwrap()),
        (
            "limits",
            "all",
            query(
                "write:\n  global: {max_concurrency: 30}\n  default:\n    request: {size_bytes_limit: 1, series_limit: 2, \
                 samples_limit: 3}\n    head_series_limit: 4\n    out_of_order_time_window: 1h\n  tenants:\n    a:\n      \
                 series_per_metric_limit: 5\n      new_series_per_second_limit: 6\n      \
                 label_names_per_series_limit: 7\n      exemplars_limit: 8\n    'b-*': {out_of_order_time_window: 30m}\n",
            ),
        ),
        ("relabel", "rules", query(rules)),
        (
            "relabel",
            "case",
            query(
                "- action: Lowercase\n  source_labels: [job]\n  target_label: job\n- action: keepequal\n  \
                 source_labels: [a]\n  target_label: b\n- regex: b\n  action: labelkeep\n",
            ),
        ),
        ("hashrings", "single", ring("single.json")),
        ("hashrings", "three", ring("three.json")),
        ("hashrings", "tenants", ring("tenants.json")),
        ("hashrings", "zones", ring("zones.json")),
        (
            "promql",
            "rate",
            query(
                r#"sum by (job) (rate(a{b=~"c|d", e!=""}[5m] offset -1h)) / on () group_left (x) b > bool 1"#,
            ),
        ),
        ("promql", "subquery", query(r#"max_over_time(quantile(0.9, {"é.x"})[1h:5m] @ end())"#)),
        ("promql", "numbers", query("-+Inf ^ 0x1f + 1e-3 * NaN % 1_000 atan2 'it\\'s'")),
        (
            "promql",
            "rest",
            query("label_replace(a and ignoring (b) c unless d, `x`, \"$1\", 'y', '(.*)') # end"),
        ),
    ]
}
