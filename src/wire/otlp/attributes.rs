//! Attributes as labels.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::common::{AnyValue, KeyValue, any_value::Value};
use super::names::{self, Translation};

/// A value as label text. Lists and maps are written as JSON, bytes as base64.
pub fn text(value: Option<&AnyValue>) -> Cow<'_, str> {
    match value.and_then(|v| v.value.as_ref()) {
        None => Cow::Borrowed(""),
        Some(Value::StringValue(text)) => Cow::Borrowed(text),
        Some(other) => {
            let mut out = String::new();
            put(other, true, &mut out);
            Cow::Owned(out)
        }
    }
}

fn put(value: &Value, outermost: bool, out: &mut String) {
    use std::fmt::Write;
    // Writing into a string cannot fail.
    let _ = match value {
        Value::StringValue(text) if outermost => write!(out, "{text}"),
        Value::StringValue(text) => write!(out, "{}", serde_json::Value::from(text.as_str())),
        Value::BoolValue(b) => write!(out, "{b}"),
        Value::IntValue(n) => write!(out, "{n}"),
        Value::DoubleValue(v) => write!(out, "{v}"),
        Value::BytesValue(bytes) if outermost => write!(out, "{}", STANDARD.encode(bytes)),
        Value::BytesValue(bytes) => write!(out, "\"{}\"", STANDARD.encode(bytes)),
        Value::ArrayValue(list) => {
            out.push('[');
            for (at, value) in list.values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                put_any(value, out);
            }
            out.push(']');
            Ok(())
        }
        Value::KvlistValue(list) => {
            let mut sorted: Vec<&KeyValue> = list.values.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            out.push('{');
            for (at, pair) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", serde_json::Value::from(pair.key.as_str()));
                match &pair.value {
                    Some(value) => put_any(value, out),
                    None => out.push_str("null"),
                }
            }
            out.push('}');
            Ok(())
        }
    };
}

fn put_any(value: &AnyValue, out: &mut String) {
    match &value.value {
        Some(value) => put(value, false, out),
        None => out.push_str("null"),
    }
}

/// Value of an attribute; none if it is missing or empty.
pub fn get<'a>(attributes: &'a [KeyValue], key: &str) -> Option<Cow<'a, str>> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    let text = text(found.value.as_ref());
    (!text.is_empty()).then_some(text)
}

/// Labels under construction: few, so that a list will do.
#[derive(Clone, Debug, Default)]
pub struct LabelList {
    pairs: Vec<(String, String)>,
}

impl LabelList {
    /// Adds attributes. Values of those whose names become the same are joined by semicolons, in the order of the
    /// original names; a label that is there already is replaced.
    pub fn add<'a>(&mut self, attributes: impl IntoIterator<Item = &'a KeyValue>, translation: Translation) {
        let mut sorted: Vec<&KeyValue> = attributes.into_iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut added = LabelList::default();
        for pair in sorted {
            let value = text(pair.value.as_ref());
            let Some(name) = names::label(&pair.key, translation) else { continue };
            if value.is_empty() {
                continue;
            }
            match added.pairs.iter_mut().find(|(known, _)| *known == *name) {
                Some((_, known)) => {
                    known.push(';');
                    known.push_str(&value);
                }
                None => added.pairs.push((name.into_owned(), value.into_owned())),
            }
        }
        for (name, value) in added.pairs {
            self.set(&name, &value);
        }
    }

    /// Sets a label, replacing one of the same name.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.pairs.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::{ArrayValue, KeyValueList};
    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(any(value)) }
    }

    #[test]
    fn values_of_every_kind_have_a_text() {
        let list = Value::ArrayValue(ArrayValue {
            values: vec![
                any(Value::StringValue("a\"b".into())),
                any(Value::IntValue(-3)),
                AnyValue::default(),
            ],
        });
        let map = Value::KvlistValue(KeyValueList {
            values: vec![pair("z", Value::BoolValue(true)), pair("a", Value::BytesValue(vec![1, 2]))],
        });
        for (value, want) in [
            (Value::StringValue("plain".into()), "plain"),
            (Value::BoolValue(false), "false"),
            (Value::DoubleValue(0.5), "0.5"),
            (Value::BytesValue(b"abcd".to_vec()), "YWJjZA=="),
            (list, "[\"a\\\"b\",-3,null]"),
            (map, "{\"a\":\"AQI=\",\"z\":true}"),
        ] {
            assert_eq!(text(Some(&any(value))), want);
        }
        assert_eq!(text(None), "");
    }

    #[test]
    fn names_that_become_one_join_their_values() {
        let text = |text: &str| Value::StringValue(text.to_owned());
        let mut labels = LabelList::default();
        labels.set("a_b", "old");
        labels.add(
            &[pair("a/b", text("2")), pair("a.b", text("1")), pair("c", text("")), pair("d", text("x"))],
            Translation::default(),
        );
        let all: Vec<_> = labels.iter().collect();
        assert_eq!(all, [("a_b", "1;2"), ("d", "x")]);
    }
}
