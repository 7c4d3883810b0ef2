//! `label_replace` and `label_join`.

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME, Pattern};

use super::{Op, Operator, Row};
use crate::Error;
use crate::plan::LabelFn;

/// Rewrites labels row by row; equal results are united by the operator around it.
pub(crate) struct LabelOp<'a> {
    input: Op<'a>,
    function: LabelFn,
    pattern: Option<Pattern>,
    /// Results of replacements by source value: sources repeat.
    seen: HashMap<String, Option<String>>,
}

impl<'a> LabelOp<'a> {
    pub(crate) fn new(input: Op<'a>, function: &LabelFn) -> Result<LabelOp<'a>, Error> {
        let (name, dst) = match function {
            LabelFn::Replace { dst, .. } => ("label_replace", dst),
            LabelFn::Join { dst, .. } => ("label_join", dst),
        };
        if dst.is_empty() {
            return Err(Error::execution(format!("invalid destination label name in {name}(): {dst}")));
        }
        let pattern = match function {
            LabelFn::Replace { regex, .. } => Some(Pattern::new(regex).map_err(|_| {
                Error::execution(format!("invalid regular expression in label_replace(): {regex}"))
            })?),
            LabelFn::Join { src, .. } => {
                if let Some(bad) = src.iter().find(|name| name.is_empty()) {
                    let message = format!("invalid source label name in label_join(): {bad}");
                    return Err(Error::execution(message));
                }
                None
            }
        };
        Ok(LabelOp { input, function: function.clone(), pattern, seen: HashMap::new() })
    }

    /// The new value of the destination; none leaves the labels as they are.
    fn value(&mut self, labels: &Labels) -> Option<String> {
        match &self.function {
            LabelFn::Join { separator, src, .. } => {
                let values: Vec<&str> = src.iter().map(|name| labels.value(name)).collect();
                Some(values.join(separator))
            }
            LabelFn::Replace { replacement, src, .. } => {
                let source = labels.value(src);
                if let Some(known) = self.seen.get(source) {
                    return known.clone();
                }
                let result = self.pattern.as_ref()?.regex().captures(source).map(|captures| {
                    let mut out = String::new();
                    captures.expand(replacement, &mut out);
                    out
                });
                self.seen.insert(source.to_owned(), result.clone());
                result
            }
        }
    }
}

impl Operator for LabelOp<'_> {
    fn next(&mut self, row: &mut Row) -> Result<bool, Error> {
        if !self.input.next(row)? {
            return Ok(false);
        }
        if let Some(value) = self.value(&row.labels) {
            let (LabelFn::Replace { dst, .. } | LabelFn::Join { dst, .. }) = &self.function;
            let mut builder = row.labels.to_builder();
            builder.set(dst, &value);
            row.labels =
                builder.finish().map_err(|e| Error::execution(format!("labels of a replacement: {e}")))?;
            if dst == METRIC_NAME {
                row.drop_name = false;
            }
        }
        Ok(true)
    }
}
