//! The tree of a query, with the byte range of every node.

use std::ops::Range;

use model::Matcher;

use super::functions::Function;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub kind: ExprKind,
    /// Bytes of the query text that this node spans.
    pub range: Range<usize>,
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Scalar,
    String,
    /// Instant vector.
    Vector,
    /// Range vector.
    Matrix,
}

impl Type {
    /// As Prometheus names it in error messages.
    pub fn describe(self) -> &'static str {
        match self {
            Type::Scalar => "scalar",
            Type::String => "string",
            Type::Vector => "instant vector",
            Type::Matrix => "range vector",
        }
    }
}

/// The kinds of node.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A number; `duration` when it was written as one (`5m` is 300).
    Number {
        value: f64,
        duration: bool,
    },
    String(String),
    /// A string literal, as it is written, whose bytes are not UTF-8: no name, no value, but an expression.
    NotText(String),
    Selector(Selector),
    /// `selector[range]`.
    Matrix {
        selector: Selector,
        window: Duration,
    },
    Subquery(Box<Subquery>),
    Call {
        function: &'static Function,
        args: Vec<Expr>,
    },
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Unary {
        op: UnaryOp,
        expr: Box<Expr>,
    },
    Paren(Box<Expr>),
}

/// An instant selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The name written before the braces, if any; its matcher is the first of `matchers` too.
    pub name: Option<String>,
    pub matchers: Vec<Matcher>,
    pub modifiers: Modifiers,
}

/// `offset`, `@`, `anchored`, `smoothed`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modifiers {
    pub offset: Option<Duration>,
    pub at: Option<At>,
    pub anchored: bool,
    pub smoothed: bool,
}

/// The time after `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    Start,
    End,
}

/// `expr[range:step]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    pub expr: Expr,
    pub window: Duration,
    pub step: Option<Duration>,
    pub modifiers: Modifiers,
}

/// A duration, or an expression of durations.
#[derive(Clone, Debug, PartialEq)]
pub struct Duration {
    pub kind: DurationKind,
    pub range: Range<usize>,
}

/// The kinds of duration expression; values in seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// Seconds; `duration` when written with units.
    Literal {
        seconds: f64,
        duration: bool,
    },
    /// `step()`.
    Step,
    /// `range()`.
    Range,
    Min(Box<Duration>, Box<Duration>),
    Max(Box<Duration>, Box<Duration>),
    Binary {
        op: BinaryOp,
        lhs: Box<Duration>,
        rhs: Box<Duration>,
    },
    Unary {
        op: UnaryOp,
        expr: Box<Duration>,
    },
    Paren(Box<Duration>),
}

/// `sum by (...) (...)` and its kin.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub param: Option<Expr>,
    pub expr: Expr,
    pub grouping: Vec<String>,
    pub without: bool,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    CountValues,
    Quantile,
    LimitK,
    LimitRatio,
}

impl AggregateOp {
    pub const ALL: [AggregateOp; 14] = [
        AggregateOp::Sum,
        AggregateOp::Avg,
        AggregateOp::Count,
        AggregateOp::Min,
        AggregateOp::Max,
        AggregateOp::Group,
        AggregateOp::Stddev,
        AggregateOp::Stdvar,
        AggregateOp::TopK,
        AggregateOp::BottomK,
        AggregateOp::CountValues,
        AggregateOp::Quantile,
        AggregateOp::LimitK,
        AggregateOp::LimitRatio,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Count => "count",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::TopK => "topk",
            AggregateOp::BottomK => "bottomk",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Quantile => "quantile",
            AggregateOp::LimitK => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        }
    }

    /// Any case, as in Prometheus.
    pub fn from_name(name: &str) -> Option<AggregateOp> {
        AggregateOp::ALL.into_iter().find(|op| op.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether a parameter comes before the vector.
    pub fn takes_param(self) -> bool {
        use AggregateOp::*;
        matches!(self, TopK | BottomK | CountValues | Quantile | LimitK | LimitRatio)
    }
}

/// `lhs op rhs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    pub op: BinaryOp,
    pub op_range: Range<usize>,
    /// Comparison answers 0 or 1 instead of filtering.
    pub returns_bool: bool,
    pub lhs: Expr,
    pub rhs: Expr,
    /// How series meet; meaningful between two vectors.
    pub matching: Matching,
}

/// How series of two vectors meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    pub card: Card,
    /// `on` (else `ignoring`).
    pub on: bool,
    pub labels: Vec<String>,
    /// Labels taken from the "one" side.
    pub include: Vec<String>,
    pub fill_left: Option<f64>,
    pub fill_right: Option<f64>,
}

/// Cardinality of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Card {
    #[default]
    OneToOne,
    /// `group_left`.
    ManyToOne,
    /// `group_right`.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Unless,
    /// `</`: keeps a histogram's observations below.
    TrimUpper,
    /// `>/`: keeps a histogram's observations above.
    TrimLower,
}

impl BinaryOp {
    pub fn as_str(self) -> &'static str {
        use BinaryOp::*;
        match self {
            Add => "+",
            Sub => "-",
            Mul => "*",
            Div => "/",
            Mod => "%",
            Pow => "^",
            Atan2 => "atan2",
            Eq => "==",
            Ne => "!=",
            Lt => "<",
            Le => "<=",
            Gt => ">",
            Ge => ">=",
            And => "and",
            Or => "or",
            Unless => "unless",
            TrimUpper => "</",
            TrimLower => ">/",
        }
    }

    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge)
    }

    /// Whether the result is no longer the metric itself.
    pub fn is_arithmetic(self) -> bool {
        use BinaryOp::*;
        matches!(self, Add | Sub | Mul | Div | Mod | Pow | Atan2)
    }

    pub fn is_trim(self) -> bool {
        matches!(self, BinaryOp::TrimUpper | BinaryOp::TrimLower)
    }

    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// Strength of binding; greater binds tighter.
    pub fn precedence(self) -> u8 {
        use BinaryOp::*;
        match self {
            Or => 1,
            And | Unless => 2,
            Eq | Ne | Lt | Le | Gt | Ge => 3,
            Add | Sub => 4,
            Mul | Div | Mod | Atan2 | TrimUpper | TrimLower => 5,
            Pow => 6,
        }
    }
}

/// Signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    Plus,
    Minus,
}
