//! One log line, as logfmt or as a JSON object: fields in the order in which they are put.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

use crate::Format;

/// A line being written.
pub(crate) struct Line {
    format: Format,
    text: String,
}

impl Line {
    pub(crate) fn new(format: Format) -> Line {
        Line { format, text: String::new() }
    }

    /// The fields alone, to be put into another line of the same format.
    pub(crate) fn into_fields(self) -> String {
        self.text
    }

    /// The whole line.
    pub(crate) fn finish(self) -> String {
        match self.format {
            Format::Logfmt => self.text,
            Format::Json => format!("{{{}}}", self.text),
        }
    }

    /// Takes over the fields of another line.
    pub(crate) fn put_fields(&mut self, fields: &str) {
        if !fields.is_empty() {
            self.separate();
            self.text.push_str(fields);
        }
    }

    pub(crate) fn put_text(&mut self, key: &str, value: &str) {
        self.key(key);
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '=' && c != '\\';
        match self.format {
            Format::Logfmt if !value.is_empty() && value.chars().all(plain) => self.text.push_str(value),
            _ => quote(&mut self.text, value),
        }
    }

    /// A number or a truth: never quoted.
    fn put_plain(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        let _ = write!(self.text, "{value}");
    }

    fn key(&mut self, key: &str) {
        self.separate();
        match self.format {
            Format::Logfmt => {
                self.text.extend(
                    key.chars().map(|c| if c.is_whitespace() || "=\"".contains(c) { '_' } else { c }),
                );
                self.text.push('=');
            }
            Format::Json => {
                quote(&mut self.text, key);
                self.text.push(':');
            }
        }
    }

    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.push(if self.format == Format::Json { ',' } else { ' ' });
        }
    }
}

/// Quotes as JSON does, which logfmt readers understand as well.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The name by which a field is shown.
fn shown(field: &Field) -> &str {
    match field.name() {
        "message" => "msg",
        "error" => "err",
        name => name.strip_prefix("r#").unwrap_or(name),
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(shown(field), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(shown(field), &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors already repeat their source.
            if !text.contains(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            source = cause.source();
        }
        self.put_text(shown(field), &text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put_plain(shown(field), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_plain(shown(field), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        if value.is_finite() {
            self.put_plain(shown(field), value)
        } else {
            self.put_text(shown(field), &value.to_string())
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put_plain(shown(field), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_stay_on_one_line() {
        let line = |format| {
            let mut line = Line::new(format);
            line.put_text("level", "info");
            line.put_text("msg", "a \"b\"\n=c\u{1}");
            line.put_text("empty", "");
            line.put_plain("n", 7);
            line.put_fields("");
            line.finish()
        };
        assert_eq!(line(Format::Logfmt), r#"level=info msg="a \"b\"\n=c\u0001" empty="" n=7"#);
        assert_eq!(line(Format::Json), r#"{"level":"info","msg":"a \"b\"\n=c\u0001","empty":"","n":7}"#);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_one_line_and_valid_json(key in "[a-z_.]{1,8}", value in "(?s).*") {
            let line = |format| {
                let mut line = Line::new(format);
                line.put_text("ts", "now");
                line.put_text(&key, &value);
                line.finish()
            };
            let json: serde_json::Value = serde_json::from_str(&line(Format::Json)).expect("an object");
            proptest::prop_assert_eq!(&json[&key], &serde_json::Value::String(value.clone()));
            proptest::prop_assert!(!line(Format::Json).contains(['\n', '\r']));
            proptest::prop_assert!(!line(Format::Logfmt).contains(['\n', '\r']));
        }
    }
}
