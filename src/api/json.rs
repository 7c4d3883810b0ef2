//! JSON text written by hand into bytes: strings, and objects of labels.
//!
//! Prometheus escapes in two ways: labels as they are, other text so that it may stand in HTML. Clients compare
//! bytes, so both are kept.

use model::Labels;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A string as labels and values are written: only what JSON demands is escaped.
pub fn label(out: &mut Vec<u8>, text: &str) {
    label_bytes(out, text.as_bytes());
}

fn label_bytes(out: &mut Vec<u8>, text: &[u8]) {
    string(out, text, |b| match b {
        b'"' | b'\\' => true,
        b => b < 0x20,
    });
}

/// A string as everything else is written: `<`, `>`, `&` and the two line separators are escaped as well.
pub fn text(out: &mut Vec<u8>, text: &str) {
    if !text.contains(['\u{2028}', '\u{2029}']) {
        return html(out, text);
    }
    let mut rest = Vec::new();
    html(&mut rest, text);
    let rest = String::from_utf8_lossy(&rest);
    let escaped = rest.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    out.extend_from_slice(escaped.as_bytes());
}

fn html(out: &mut Vec<u8>, text: &str) {
    string(out, text.as_bytes(), |b| match b {
        b'"' | b'\\' | b'<' | b'>' | b'&' => true,
        b => b < 0x20,
    });
}

fn string(out: &mut Vec<u8>, bytes: &[u8], special: impl Fn(u8) -> bool) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    // Looked through many at a time; hardly any text has a special byte.
    if !bytes.iter().fold(false, |any, &b| any | special(b)) {
        out.extend_from_slice(bytes);
        return out.push(b'"');
    }
    let mut from = 0;
    for (at, &b) in bytes.iter().enumerate() {
        if !special(b) {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// `{"name":"value",…}` in the order of the names.
pub fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, (name, value)) in labels.raw().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        label_bytes(out, name);
        out.push(b':');
        label_bytes(out, value);
    }
    out.push(b'}');
}

/// `["a","b"]`, as other text.
pub fn list<S: AsRef<str>>(out: &mut Vec<u8>, items: &[S]) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(out, item.as_ref());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn two_ways_of_escaping() {
        let raw = "a<b> & \"c\"\\\n\t\u{1}\u{2028}é";
        assert_eq!(shown(|o| label(o, raw)), "\"a<b> & \\\"c\\\"\\\\\\n\\t\\u0001\u{2028}é\"");
        assert_eq!(
            shown(|o| text(o, raw)),
            "\"a\\u003cb\\u003e \\u0026 \\\"c\\\"\\\\\\n\\t\\u0001\\u2028é\""
        );
    }

    #[test]
    fn label_objects() {
        let set = Labels::from_pairs([("__name__", "up"), ("job", "a\"b")]).unwrap();
        assert_eq!(shown(|o| labels(o, &set)), r#"{"__name__":"up","job":"a\"b"}"#);
        assert_eq!(shown(|o| labels(o, &Labels::empty())), "{}");
    }

    proptest! {
        #[test]
        fn any_text_reads_back(raw: String) {
            for written in [shown(|o| label(o, &raw)), shown(|o| text(o, &raw))] {
                prop_assert_eq!(&serde_json::from_str::<String>(&written).unwrap(), &raw);
            }
        }
    }
}
