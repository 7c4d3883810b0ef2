//! Hints: what stands around a selector is told to those who read for it.

use crate::plan::{Node, RangeFn, Source};

pub(in crate::plan) fn run(node: &mut Node, step: i64) {
    walk(node, &Around { step, ..Around::default() });
}

#[derive(Clone, Default)]
struct Around {
    step: i64,
    function: String,
    grouping: Vec<String>,
    by: bool,
}

fn walk(node: &mut Node, around: &Around) {
    let inner = match node {
        Node::Select(select) | Node::SelectTimes(select) | Node::SelectStarts(select) => {
            select.hints.step = around.step;
            select.hints.function.clone_from(&around.function);
            select.hints.grouping.clone_from(&around.grouping);
            select.hints.by = around.by;
            return;
        }
        Node::Range { function, source, .. } => {
            let name = name_of(*function);
            match source {
                Source::Selector(select) => {
                    select.hints.step = around.step;
                    select.hints.function = name.to_owned();
                    select.hints.grouping.clone_from(&around.grouping);
                    select.hints.by = around.by;
                    Around { step: around.step, ..Around::default() }
                }
                Source::Subquery(subquery) => Around { step: subquery.step, ..Around::default() },
            }
        }
        Node::Aggregate { op, grouping, without, .. } => Around {
            step: around.step,
            function: op.as_str().to_owned(),
            grouping: grouping.clone(),
            by: !*without,
        },
        Node::Invariant(_) => around.clone(),
        _ => Around { step: around.step, ..Around::default() },
    };
    node.each_child(&mut |child| walk(child, &inner));
}

fn name_of(function: RangeFn) -> &'static str {
    use RangeFn::*;
    match function {
        Rate => "rate",
        Increase => "increase",
        Delta => "delta",
        Irate => "irate",
        Idelta => "idelta",
        Deriv => "deriv",
        PredictLinear => "predict_linear",
        Resets => "resets",
        Changes => "changes",
        DoubleExponentialSmoothing => "double_exponential_smoothing",
        Sum => "sum_over_time",
        Avg => "avg_over_time",
        Min => "min_over_time",
        Max => "max_over_time",
        Count => "count_over_time",
        Stddev => "stddev_over_time",
        Stdvar => "stdvar_over_time",
        Quantile => "quantile_over_time",
        Mad => "mad_over_time",
        First => "first_over_time",
        Last => "last_over_time",
        Present => "present_over_time",
        TsOfFirst => "ts_of_first_over_time",
        TsOfLast => "ts_of_last_over_time",
        TsOfMin => "ts_of_min_over_time",
        TsOfMax => "ts_of_max_over_time",
    }
}
