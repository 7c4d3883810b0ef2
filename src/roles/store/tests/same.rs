//! Whatever is asked, the store answers as the block's own reader does.

mod common;

use common::{House, Series, local, remote};
use model::{Labels, MatchOp, Matcher, Sample, TimeRange};
use proptest::prelude::*;
use storage::{Context, LabelRequest, PartialResponse};

fn matcher() -> impl Strategy<Value = Matcher> {
    let name = prop_oneof![Just("__name__"), Just("a"), Just("b"), Just("none")];
    let value = prop_oneof![
        "[uvw]{0,2}",
        Just("u.*".to_owned()),
        Just(".+".to_owned()),
        Just(".*".to_owned()),
        Just("u|v|".to_owned()),
        Just("(u|w)v?".to_owned()),
    ];
    let op = prop_oneof![
        Just(MatchOp::Equal),
        Just(MatchOp::NotEqual),
        Just(MatchOp::Regex),
        Just(MatchOp::NotRegex)
    ];
    (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, &value).unwrap())
}

fn series() -> impl Strategy<Value = Series> {
    let labels = proptest::collection::btree_map(
        prop_oneof![Just("__name__"), Just("a"), Just("b")],
        "[uvw]{1,2}",
        1..4,
    );
    let one = (labels, 1i64..400, 1usize..300);
    proptest::collection::vec(one, 1..40).prop_map(|all| {
        let mut out: Series = all
            .into_iter()
            .map(|(labels, start, count)| {
                let sample = |n: usize| Sample { timestamp: start + n as i64 * 10, value: (n % 7) as f64 };
                (Labels::from_pairs(labels).unwrap(), (0..count).map(sample).collect())
            })
            .collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out.dedup_by(|a, b| a.0 == b.0);
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn selects_and_listings_are_equal(
        series in series(),
        asked in proptest::collection::vec(
            (proptest::collection::vec(matcher(), 0..4), 0i64..3000, 0i64..1500), 1..12),
    ) {
        let mut house = House::new();
        let dir = house.block(1, &[("replica", "a")], &series);
        let blocks = house.blocks(house.settings());
        let select = blocks.select(Vec::new());
        let block = block::Block::open(&house.world, &dir).unwrap();
        for (matchers, start, len) in asked {
            let range = TimeRange::new(start, start + len);
            let (got, notes) = remote(&*select, &matchers, range, PartialResponse::Abort).unwrap();
            prop_assert_eq!(got, local(&house.world, &dir, &matchers, range));
            prop_assert!(notes.is_empty());
            let request = LabelRequest { range, matchers: matchers.clone(), limit: 0 };
            let context = Context::background();
            let names = select.label_names(&request, &context).unwrap().values;
            let want = block.label_names(&matchers, range, 0).unwrap();
            prop_assert_eq!(names, want.into_iter().filter(|n| !n.is_empty()).collect::<Vec<_>>());
            let values = select.label_values("a", &request, &context).unwrap().values;
            prop_assert_eq!(values, block.label_values("a", &matchers, range, 0).unwrap());
        }
    }
}
