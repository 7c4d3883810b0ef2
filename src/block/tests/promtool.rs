//! Prometheus's own tool opens our blocks, and we open its. Skipped, saying so, where promtool is not installed.

mod common;

use std::process::Command;

use block::Block;
use common::*;
use model::{Labels, Matcher};
use runtime::World;

/// Standard output of `promtool ARGS`; none where it is not installed.
fn promtool(args: &[&str]) -> Option<String> {
    let output = match Command::new("promtool").args(args).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: promtool does not run here ({error}); install the package `prometheus`");
            return None;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {args:?}: {out}{err}");
    Some(out.into_owned())
}

#[test]
fn promtool_lists_analyzes_and_dumps_our_block() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..500)
        .map(|n| {
            format!("metric_{}{{job=\"j{}\", instance=\"i{n}\", utf=\"é☃\"}} {n}+0.5x239\n", n % 7, n % 3)
        })
        .collect();
    let series = testkit::parse_load(&text, 1_709_000_000_000, 15_000).unwrap();
    let meta = write(&World::real(), dir.path(), &series, 120).unwrap();
    let path = dir.path().to_str().unwrap();
    let Some(list) = promtool(&["tsdb", "list", path]) else { return };
    assert!(list.contains(ID) && list.contains("120000") && list.contains("1000"), "{list}");
    let analysis = promtool(&["tsdb", "analyze", path, ID]).unwrap();
    assert!(analysis.contains("Series: 500") && analysis.contains("Label names: 4"), "{analysis}");
    // It opens a whole data folder, so there must be a log, however empty.
    World::real().disk.create_dir_all(&dir.path().join("wal")).unwrap();
    let dump = promtool(&["tsdb", "dump", path]).unwrap();
    assert_eq!(dump.lines().count() as u64, meta.stats.num_samples);
    for (labels, samples) in series.iter().step_by(97) {
        let instance = format!("instance=\"{}\"", labels.value("instance"));
        let mut got: Vec<(i64, f64)> = dump
            .lines()
            .filter(|line| line.contains(&instance))
            .map(|line| {
                let (_, tail) = line.rsplit_once('}').unwrap();
                let (value, time) = tail.trim().split_once(' ').unwrap();
                (time.parse().unwrap(), value.parse().unwrap())
            })
            .collect();
        got.sort_by_key(|s| s.0);
        assert_eq!(got, samples.iter().map(|s| (s.timestamp, s.value)).collect::<Vec<_>>());
    }
}

#[test]
fn we_open_what_promtool_writes() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
        req_total{code="200", job="a"} 0+3x400
        req_total{code="500", job="a"} 7+0x400
        temp{place="é"} -1.5+0.25x400
    "#;
    let series = testkit::parse_load(text, 1_709_000_000_000, 15_000).unwrap();
    let mut metrics = String::new();
    for (labels, samples) in &series {
        for s in samples {
            let name = labels.metric_name();
            let pairs: Vec<_> = labels
                .iter()
                .filter(|(n, _)| *n != "__name__")
                .map(|(n, v)| format!("{n}=\"{v}\""))
                .collect();
            metrics.push_str(&format!(
                "{name}{{{}}} {} {}\n",
                pairs.join(","),
                s.value,
                s.timestamp as f64 / 1e3
            ));
        }
    }
    metrics.push_str("# EOF\n");
    let input = dir.path().join("metrics.txt");
    let out = dir.path().join("data");
    World::real().disk.write_atomic(&input, metrics.as_bytes()).unwrap();
    let args = ["tsdb", "create-blocks-from", "openmetrics", input.to_str().unwrap(), out.to_str().unwrap()];
    if promtool(&args).is_none() {
        return;
    }
    let world = World::real();
    let ids = block::list(&world, &out).unwrap();
    assert!(!ids.is_empty());
    let blocks: Vec<Block> =
        ids.iter().map(|id| Block::open(&world, &out.join(id.to_string())).unwrap()).collect();
    for block in &blocks {
        block.verify().unwrap();
        let meta = block.meta();
        let text = world.disk.read(&block.dir().join("meta.json")).unwrap();
        assert_eq!(
            String::from_utf8(meta.to_json().unwrap()),
            String::from_utf8(text),
            "written back the same"
        );
        let total: u64 = read(block).iter().map(|s| s.1.len() as u64).sum();
        assert_eq!(total, meta.stats.num_samples);
    }
    let mut merged: std::collections::BTreeMap<Labels, Vec<model::Sample>> = Default::default();
    for (labels, samples) in blocks.iter().flat_map(read) {
        merged.entry(labels).or_default().extend(samples);
    }
    merged.values_mut().for_each(|s| s.sort_by_key(|s| s.timestamp));
    assert_eq!(merged.into_iter().collect::<Vec<_>>(), series);
    let some = try_select(&blocks[0], &[Matcher::equal("code", "500")]).unwrap();
    assert_eq!(some.len(), 1);
}
