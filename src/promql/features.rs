//! What of the language and of its evaluation is experimental, under the names of Prometheus's `--enable-feature`.
//!
//! The parser reads the whole language; whoever evaluates says here what may be used. Errors are Prometheus's.

use crate::parse::functions::Function;
use crate::parse::{AggregateOp, ExprKind, Modifiers, ParseError};
use crate::{EngineSettings, Expr};

/// Experimental parts that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `promql-experimental-functions`: functions marked so, `limitk` and `limit_ratio`.
    pub functions: bool,
    /// `promql-extended-range-selectors`: `anchored` and `smoothed`.
    pub extended_selectors: bool,
    /// `promql-binop-fill-modifiers`: `fill`, `fill_left` and `fill_right`.
    pub fills: bool,
    /// `use-start-timestamps`; here it is only `start_timestamp()`, the rest is [`EngineSettings::use_start_timestamps`].
    pub start_timestamps: bool,
}

impl Features {
    pub const ALL: Features =
        Features { functions: true, extended_selectors: true, fills: true, start_timestamps: true };
    pub const NONE: Features =
        Features { functions: false, extended_selectors: false, fills: false, start_timestamps: false };

    /// The first part of `expr`, in the order of the text's tree, that is not allowed.
    pub fn check(&self, text: &str, expr: &Expr) -> Result<(), ParseError> {
        if *self == Features::ALL {
            return Ok(());
        }
        // A stack of our own: expressions may be deep.
        let mut rest = vec![expr];
        while let Some(expr) = rest.pop() {
            let refused = |message: String| Err(ParseError::new(text, expr.range.clone(), message));
            match &expr.kind {
                ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotText(_) => {}
                ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => {
                    if let Some(name) = self.extended(&selector.modifiers) {
                        return refused(format!("{name} modifier is experimental and not enabled"));
                    }
                }
                ExprKind::Subquery(subquery) => {
                    if let Some(name) = self.extended(&subquery.modifiers) {
                        return refused(format!("{name} modifier is experimental and not enabled"));
                    }
                    rest.push(&subquery.expr);
                }
                ExprKind::Call { function, args } => {
                    if !self.allows(function) {
                        return refused(format!("function {:?} is not enabled", function.name));
                    }
                    rest.extend(args.iter().rev());
                }
                ExprKind::Aggregate(aggregate) => {
                    if matches!(aggregate.op, AggregateOp::LimitK | AggregateOp::LimitRatio)
                        && !self.functions
                    {
                        return refused(format!(
                            "{}() is experimental and must be enabled with \
                             --enable-feature=promql-experimental-functions",
                            aggregate.op.as_str()
                        ));
                    }
                    rest.push(&aggregate.expr);
                    rest.extend(&aggregate.param);
                }
                ExprKind::Binary(binary) => {
                    let fills = binary.matching.fill_left.or(binary.matching.fill_right).is_some();
                    if fills && !self.fills {
                        return refused("binop fill modifiers are experimental and not enabled".to_owned());
                    }
                    rest.extend([&binary.rhs, &binary.lhs]);
                }
                ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => rest.push(expr),
            }
        }
        Ok(())
    }

    /// Whether queries may call it.
    pub fn allows(&self, function: &Function) -> bool {
        self.functions
            || !function.experimental
            || (self.start_timestamps && function.name == "start_timestamp")
    }

    fn extended(&self, modifiers: &Modifiers) -> Option<&'static str> {
        match modifiers {
            _ if self.extended_selectors => None,
            Modifiers { anchored: true, .. } => Some("anchored"),
            Modifiers { smoothed: true, .. } => Some("smoothed"),
            _ => None,
        }
    }
}

/// Names as they are given to `--enable-feature`, each maybe several with commas in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled {
    pub features: Features,
    pub delayed_name_removal: bool,
    pub use_start_timestamps: bool,
    /// `promql-per-step-stats`: samples step by step for `stats=all`.
    pub per_step_stats: bool,
    /// Names that mean nothing here; worth a warning.
    pub unknown: Vec<String>,
}

impl Enabled {
    pub fn of_names<'a>(given: impl IntoIterator<Item = &'a str>) -> Enabled {
        let mut enabled = Enabled {
            features: Features::NONE,
            delayed_name_removal: false,
            use_start_timestamps: false,
            per_step_stats: false,
            unknown: Vec::new(),
        };
        for name in given.into_iter().flat_map(|names| names.split(',')).map(str::trim) {
            match name {
                "promql-experimental-functions" => enabled.features.functions = true,
                "promql-extended-range-selectors" => enabled.features.extended_selectors = true,
                "promql-binop-fill-modifiers" => enabled.features.fills = true,
                "promql-delayed-name-removal" => enabled.delayed_name_removal = true,
                "promql-per-step-stats" => enabled.per_step_stats = true,
                "use-start-timestamps" => {
                    enabled.use_start_timestamps = true;
                    enabled.features.start_timestamps = true;
                }
                // What is part of the language by now, or always on here.
                ""
                | "promql-at-modifier"
                | "promql-negative-offset"
                | "promql-duration-expr"
                | "native-histograms"
                | "exemplar-storage" => {}
                unknown => enabled.unknown.push(unknown.to_owned()),
            }
        }
        enabled
    }

    /// `settings` with what is enabled, and nothing else that is experimental.
    pub fn settle(&self, settings: EngineSettings) -> EngineSettings {
        EngineSettings {
            features: self.features,
            delayed_name_removal: self.delayed_name_removal,
            use_start_timestamps: self.use_start_timestamps,
            ..settings
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn what_is_experimental_is_refused_where_it_stands() {
        for (query, why) in [
            ("1 + mad_over_time(a[5m])", "1:5: parse error: function \"mad_over_time\" is not enabled"),
            (
                "sum(limitk(2, a))",
                "1:5: parse error: limitk() is experimental and must be enabled with \
                 --enable-feature=promql-experimental-functions",
            ),
            (
                "a + on (x) fill(0) b",
                "1:1: parse error: binop fill modifiers are experimental and not enabled",
            ),
            ("a anchored", "1:1: parse error: anchored modifier is experimental and not enabled"),
            ("rate(a[5m] smoothed)", "1:6: parse error: smoothed modifier is experimental and not enabled"),
            ("-(start_timestamp(a))", "1:3: parse error: function \"start_timestamp\" is not enabled"),
        ] {
            let expr = parse(query).unwrap();
            assert_eq!(Features::NONE.check(query, &expr).unwrap_err().to_string(), why);
            assert_eq!(Features::ALL.check(query, &expr), Ok(()));
        }
        for query in ["rate(a[5m] @ end() offset -1m)", "first_over_time(a[1m * 2])", "topk(1, a) - bool_b"] {
            assert_eq!(Features::NONE.check(query, &parse(query).unwrap()), Ok(()), "{query}");
        }
    }

    #[test]
    fn names() {
        let enabled = Enabled::of_names([
            "use-start-timestamps,promql-at-modifier",
            " x ",
            "promql-binop-fill-modifiers",
        ]);
        assert!(enabled.use_start_timestamps && enabled.features.fills && !enabled.features.functions);
        assert_eq!(enabled.unknown, ["x"]);
        let settings = enabled.settle(EngineSettings::default());
        assert!(settings.use_start_timestamps && !settings.delayed_name_removal);
    }
}
