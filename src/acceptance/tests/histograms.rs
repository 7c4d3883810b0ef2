//! Native histograms and a real Prometheus: it opens the block that we write, and we open the one that it writes; every
//! sample is compared.

mod natives;

use acceptance::post;
use block::{Block, BlockId, BlockWriter, MetaSpec};
use chunk::histogram::{encode_floats, encode_ints};
use chunk::{ChunkData, Encoding};
use model::histogram::CUSTOM_BUCKETS;
use model::{Labels, TimeRange};
use natives::*;
use runtime::World;
use wire::pb::prometheus as pb;

#[test]
fn a_prometheus_opens_our_histogram_block() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("ours");
    std::fs::create_dir(&data).expect("a folder");
    let lives = lives(begin(), 470);
    let world = World::real();
    let id = BlockId::parse("01HQ3ZK8G0000000000000000H").expect("an id");
    let mut writer = BlockWriter::create(&world, &data, id).expect("a block");
    let name = |metric: &str| Labels::from_pairs([("__name__", metric)]).expect("labels");
    let mut rows: Vec<(Labels, Vec<ChunkData>)> = Vec::new();
    for (metric, list) in &lives {
        rows.push((name(metric), encode_ints(list.iter().cloned(), 120).expect("chunks")));
        rows.push((name(&format!("{metric}_float")), encode_floats(floated(list), 120).expect("chunks")));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.iter().for_each(|(labels, chunks)| writer.add_series(labels, chunks).expect("a series"));
    let meta =
        writer.finish(MetaSpec { level: 1, ..MetaSpec::default() }).expect("a block").expect("samples");
    assert_eq!(meta.stats.num_histogram_samples, 470 * 2 * lives.len() as u64);

    let Some(peer) = start(dir.path(), "ours") else { return };
    let mut compared = 0;
    for (labels, chunks) in &rows {
        // A remote read tells everything but custom bounds; those are compared over the query API.
        let there = peer.read(labels.metric_name());
        assert_eq!(there.len(), 1, "series of {labels}");
        let there = &there[0].histograms;
        if chunks[0].encoding == Encoding::Histogram {
            let there: Vec<_> = there.iter().map(from_pb_whole).collect();
            let mut here = whole(chunks);
            here.iter_mut().for_each(|s| s.histogram.custom_values = [].into());
            assert_eq!(there.len(), here.len(), "{labels}");
            for (there, here) in there.iter().zip(&here) {
                assert_eq!((there, there.histogram.hint), (here, here.histogram.hint), "{labels}");
                compared += 1;
            }
        } else {
            let there: Vec<_> = there.iter().map(from_pb_float).collect();
            let mut here = float(chunks);
            if let Some(last) = here.iter().rfind(|s| s.histogram.schema == CUSTOM_BUCKETS) {
                assert_eq!(peer.bounds(labels.metric_name(), last.timestamp), upper_bounds(&last.histogram));
            }
            here.iter_mut().for_each(|s| s.histogram.custom_values = [].into());
            assert_eq!(there.len(), here.len(), "{labels}");
            for (there, here) in there.iter().zip(&here) {
                assert_eq!((there, there.histogram.hint), (here, here.histogram.hint), "{labels}");
                compared += 1;
            }
        }
    }
    // And what both read is what was sent.
    for (metric, list) in &lives {
        let of =
            |metric: &str| rows.iter().find(|(l, _)| l.metric_name() == metric).map(|(_, c)| c).expect("it");
        let here = whole(of(metric));
        assert!(here.iter().zip(list).all(
            |(a, b)| a.timestamp == b.timestamp && same(&a.histogram.to_float(), &b.histogram.to_float())
        ));
        let here = float(of(&format!("{metric}_float")));
        assert!(
            here.iter()
                .zip(&floated(list))
                .all(|(a, b)| a.timestamp == b.timestamp && same(&a.histogram, &b.histogram))
        );
    }
    assert_eq!(compared, meta.stats.num_histogram_samples);
    println!("{compared} histograms of our block, read by a Prometheus, are bit-equal");
    peer.running.stop();
}

#[test]
fn we_open_the_histogram_blocks_of_a_prometheus() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(peer) = start(dir.path(), "theirs") else { return };
    let lives = lives(begin() + 7_200_000, 470);
    // All series side by side, as scrapes would bring them.
    for part in 0..10 {
        let cut = part * 47..(part + 1) * 47;
        let series = |metric: &str, histograms| {
            let label = pb::Label { name: "__name__".to_owned(), value: metric.to_owned() };
            pb::TimeSeries { labels: vec![label], histograms, ..pb::TimeSeries::default() }
        };
        let both = lives.iter().flat_map(|(metric, list)| {
            let list = &list[cut.clone()];
            let float = floated(list).iter().map(to_pb_float).collect();
            [
                series(metric, list.iter().map(to_pb_whole).collect()),
                series(&format!("{metric}_float"), float),
            ]
        });
        let timeseries = both.collect();
        peer.call("/api/v1/write", &pb::WriteRequest { timeseries, metadata: Vec::new() });
    }
    let answer = post(&format!("{}/api/v1/admin/tsdb/snapshot", peer.url), &[], &[]).expect("an answer");
    let name = answer.json()["data"]["name"].as_str().map(str::to_owned);
    let snapshot = dir.path().join("theirs/snapshots").join(name.expect("a snapshot"));
    let world = World::real();
    let mut chunks: std::collections::BTreeMap<Labels, Vec<ChunkData>> = Default::default();
    for id in block::list(&world, &snapshot).expect("blocks") {
        let block = Block::open(&world, &snapshot.join(id.to_string())).expect("a block");
        block.verify().expect("a block without a fault");
        for series in block.series(&[], TimeRange::ALL, 0, false).expect("series") {
            let (labels, more) = series.expect("a series");
            chunks.entry(labels).or_default().extend(more);
        }
    }
    chunks.values_mut().for_each(|list| list.sort_by_key(|c| c.range.start));
    let mut compared = 0;
    for (metric, list) in &lives {
        let of = |metric: &str| {
            let labels = Labels::from_pairs([("__name__", metric)]).expect("labels");
            chunks.get(&labels).unwrap_or_else(|| panic!("{metric} is not there")).as_slice()
        };
        let read = whole(of(metric));
        assert_eq!(read.len(), list.len(), "{metric}");
        for (read, sent) in read.iter().zip(list) {
            assert_eq!(read.timestamp, sent.timestamp, "{metric}");
            assert!(
                same(&read.histogram.to_float(), &sent.histogram.to_float()),
                "{metric}: {read:?} was sent as {sent:?}"
            );
            compared += 1;
        }
        let (read, sent) = (float(of(&format!("{metric}_float"))), floated(list));
        assert_eq!(read.len(), sent.len(), "{metric}");
        for (read, sent) in read.iter().zip(&sent) {
            assert_eq!(read.timestamp, sent.timestamp, "{metric}");
            assert!(same(&read.histogram, &sent.histogram), "{metric}: {read:?} was sent as {sent:?}");
            compared += 1;
        }
    }
    println!("{compared} histograms that a Prometheus wrote are read as sent");
    peer.running.stop();
}
