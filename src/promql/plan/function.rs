//! The functions of a plan, by what they work on: windows, values, labels, order.

use std::ops::Range;

use model::Matcher;

use super::node::Extend;

/// Functions over the samples of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeFn {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Deriv,
    PredictLinear,
    Resets,
    Changes,
    DoubleExponentialSmoothing,
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Stddev,
    Stdvar,
    Quantile,
    Mad,
    First,
    Last,
    Present,
    TsOfFirst,
    TsOfLast,
    TsOfMin,
    TsOfMax,
}

impl RangeFn {
    pub fn from_name(name: &str) -> Option<RangeFn> {
        use RangeFn::*;
        Some(match name {
            "rate" => Rate,
            "increase" => Increase,
            "delta" => Delta,
            "irate" => Irate,
            "idelta" => Idelta,
            "deriv" => Deriv,
            "predict_linear" => PredictLinear,
            "resets" => Resets,
            "changes" => Changes,
            "double_exponential_smoothing" => DoubleExponentialSmoothing,
            "sum_over_time" => Sum,
            "avg_over_time" => Avg,
            "min_over_time" => Min,
            "max_over_time" => Max,
            "count_over_time" => Count,
            "stddev_over_time" => Stddev,
            "stdvar_over_time" => Stdvar,
            "quantile_over_time" => Quantile,
            "mad_over_time" => Mad,
            "first_over_time" => First,
            "last_over_time" => Last,
            "present_over_time" => Present,
            "ts_of_first_over_time" => TsOfFirst,
            "ts_of_last_over_time" => TsOfLast,
            "ts_of_min_over_time" => TsOfMin,
            "ts_of_max_over_time" => TsOfMax,
            _ => return None,
        })
    }

    /// Whether the result is still the metric itself.
    pub fn keeps_name(self) -> bool {
        matches!(self, RangeFn::First | RangeFn::Last)
    }

    /// The functions that understand an extended window.
    pub fn extends(extend: Extend) -> &'static [(RangeFn, &'static str)] {
        const ALL: [(RangeFn, &str); 5] = [
            (RangeFn::Delta, "delta"),
            (RangeFn::Increase, "increase"),
            (RangeFn::Rate, "rate"),
            (RangeFn::Changes, "changes"),
            (RangeFn::Resets, "resets"),
        ];
        match extend {
            Extend::No => &[],
            Extend::Anchored => &ALL,
            Extend::Smoothed => &ALL[..3],
        }
    }

    /// Whether the evaluation time itself enters the result.
    pub fn reads_time(self) -> bool {
        self == RangeFn::PredictLinear
    }
}

/// Functions of one value (and scalar parameters).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapFn {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Clamp,
    ClampMax,
    ClampMin,
    Cos,
    Cosh,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    DaysInMonth,
    Deg,
    Exp,
    Floor,
    HistogramAvg,
    HistogramCount,
    HistogramStddev,
    HistogramStdvar,
    HistogramSum,
    Hour,
    Ln,
    Log10,
    Log2,
    Minute,
    Month,
    Rad,
    Round,
    Sgn,
    Sin,
    Sinh,
    Sqrt,
    Tan,
    Tanh,
    /// `start_timestamp` of anything but a selector: nothing is known.
    StartTimestamp,
    /// `timestamp` of anything but a selector: the evaluation time.
    Timestamp,
    Year,
}

impl MapFn {
    pub fn from_name(name: &str) -> Option<MapFn> {
        use MapFn::*;
        Some(match name {
            "abs" => Abs,
            "acos" => Acos,
            "acosh" => Acosh,
            "asin" => Asin,
            "asinh" => Asinh,
            "atan" => Atan,
            "atanh" => Atanh,
            "ceil" => Ceil,
            "clamp" => Clamp,
            "clamp_max" => ClampMax,
            "clamp_min" => ClampMin,
            "cos" => Cos,
            "cosh" => Cosh,
            "day_of_month" => DayOfMonth,
            "day_of_week" => DayOfWeek,
            "day_of_year" => DayOfYear,
            "days_in_month" => DaysInMonth,
            "deg" => Deg,
            "exp" => Exp,
            "floor" => Floor,
            "histogram_avg" => HistogramAvg,
            "histogram_count" => HistogramCount,
            "histogram_stddev" => HistogramStddev,
            "histogram_stdvar" => HistogramStdvar,
            "histogram_sum" => HistogramSum,
            "hour" => Hour,
            "ln" => Ln,
            "log10" => Log10,
            "log2" => Log2,
            "minute" => Minute,
            "month" => Month,
            "rad" => Rad,
            "round" => Round,
            "sgn" => Sgn,
            "sin" => Sin,
            "sinh" => Sinh,
            "sqrt" => Sqrt,
            "start_timestamp" => StartTimestamp,
            "tan" => Tan,
            "tanh" => Tanh,
            "timestamp" => Timestamp,
            "year" => Year,
            _ => return None,
        })
    }

    /// Functions of the calendar: without an argument they look at the evaluation time.
    pub fn of_calendar(self) -> bool {
        use MapFn::*;
        matches!(self, DayOfMonth | DayOfWeek | DayOfYear | DaysInMonth | Hour | Minute | Month | Year)
    }
}

/// Functions that rewrite labels.
#[derive(Clone, Debug)]
pub enum LabelFn {
    Replace { dst: String, replacement: String, src: String, regex: String },
    Join { dst: String, separator: String, src: Vec<String> },
}

/// Which info series and which of their labels `info` is to use.
#[derive(Clone, Debug)]
pub struct InfoLabels {
    /// Tests on the names of the info metrics.
    pub names: Vec<Matcher>,
    /// Whether one of them asks for names instead of excluding some.
    pub named: bool,
    /// Only these labels; none means all.
    pub data: Option<Vec<String>>,
    /// Series without info series are kept.
    pub optional: bool,
}

/// Functions that order an instant vector.
#[derive(Clone, Debug)]
pub enum SortFn {
    Value { descending: bool, range: Range<usize> },
    Label { labels: Vec<String>, descending: bool, range: Range<usize> },
}
