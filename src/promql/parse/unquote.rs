//! String literals to the text they stand for, by Go's rules of escaping.

/// The value of a literal with its quotes, or what is wrong with it.
pub(crate) fn unquote(literal: &str) -> Result<String, String> {
    unquote_bytes(literal)?.map_err(|_| format!("string literal {literal} is not valid UTF-8"))
}

/// The same, with bytes that are not UTF-8 as they are.
pub(super) fn unquote_bytes(literal: &str) -> Result<Result<String, Vec<u8>>, String> {
    let quote = literal.as_bytes()[0];
    let inner = &literal[1..literal.len() - 1];
    if quote == b'`' {
        return Ok(Ok(inner.to_owned()));
    }
    let invalid = || format!("invalid escape in string literal {literal}");
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let code = *rest.as_bytes().get(at + 1).ok_or_else(invalid)?;
        rest = match rest.get(at + 2..) {
            Some(rest) => rest,
            None => return Err(invalid()),
        };
        let (digits, radix) = match code {
            b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'\\' | b'"' | b'\'' => {
                if (code == b'"' || code == b'\'') && code != quote {
                    return Err(invalid());
                }
                out.push(match code {
                    b'a' => 7,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    other => other,
                });
                continue;
            }
            b'x' => (2, 16),
            b'u' => (4, 16),
            b'U' => (8, 16),
            b'0'..=b'7' => (2, 8),
            _ => return Err(invalid()),
        };
        let text = rest.get(..digits).ok_or_else(invalid)?;
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut value = u32::from_str_radix(text, radix).map_err(|_| invalid())?;
        rest = &rest[digits..];
        match code {
            b'u' | b'U' => {
                let c = char::from_u32(value).ok_or_else(invalid)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => {
                if radix == 8 {
                    value += u32::from(code - b'0') * 64;
                }
                out.push(u8::try_from(value).map_err(|_| invalid())?);
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(String::from_utf8(out).map_err(std::string::FromUtf8Error::into_bytes))
}

/// A literal for `text`, double-quoted.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (literal, text) in [
            (r#""a\n\x41\101\u00e9""#, "a\nAAé"),
            (r"`a\n`", r"a\n"),
            (r"'it\'s'", "it's"),
            (r#""\xc3\xa9""#, "é"),
        ] {
            assert_eq!(unquote(literal).as_deref(), Ok(text), "{literal}");
        }
        for bad in [r#""\q""#, r#""\x4""#, r#""\ud800""#, r#""\xff""#, r#""\'""#] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
        let odd = "a\"b\\c\n\u{1}é";
        assert_eq!(unquote(&quote(odd)).as_deref(), Ok(odd));
    }
}
