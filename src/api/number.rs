//! Numbers as Prometheus's API writes them, digit for digit.
//!
//! # Cost
//! One pass, no allocation; whole numbers below 2^53 take the integer path.

use std::io::Write;

/// Writes a sample value: the shortest decimal that reads back as the same float, without exponent, except
/// below 1e-6 and from 1e21 on, where the exponent has a sign and at least two digits.
pub fn value(out: &mut Vec<u8>, v: f64) {
    if v.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if v.is_infinite() {
        out.extend_from_slice(if v > 0.0 { b"+Inf" } else { b"-Inf" });
    } else {
        finite(out, v);
    }
}

/// As [`value`] for a float in a JSON number's place; those that JSON cannot hold become null.
pub fn json_float(out: &mut Vec<u8>, v: f64) {
    if v.is_finite() { finite(out, v) } else { out.extend_from_slice(b"null") }
}

fn finite(out: &mut Vec<u8>, v: f64) {
    let magnitude = v.abs();
    if v == 0.0 {
        out.extend_from_slice(if v.is_sign_negative() { b"-0" } else { b"0" });
    } else if magnitude < 9_007_199_254_740_992.0 && v.fract() == 0.0 {
        integer(out, v as i64);
    } else if !(1e-6..1e21).contains(&magnitude) {
        exponent(out, v);
    } else {
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{v}");
    }
}

/// Go's 'e' form: `1e+21`, `1.5e-07`.
pub fn exponent(out: &mut Vec<u8>, v: f64) {
    let start = out.len();
    let _ = write!(out, "{v:e}");
    let Some(e) = out[start..].iter().position(|b| *b == b'e') else { return };
    let mut digits = out.split_off(start + e + 1);
    let negative = digits.first() == Some(&b'-');
    if negative {
        digits.remove(0);
    }
    out.push(if negative { b'-' } else { b'+' });
    if digits.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(&digits);
}

/// Writes a sample value as scraped pages have it: with an exponent below 1e-4 and from 1e6 on.
pub fn exposition(out: &mut Vec<u8>, v: f64) {
    match v.abs() {
        magnitude if magnitude == 0.0 || !magnitude.is_finite() => value(out, v),
        // Every float below these bounds rounds to a decimal below them: both are decimals themselves.
        magnitude if (1e-4..1e6).contains(&magnitude) => {
            let _ = write!(out, "{v}");
        }
        _ => exponent(out, v),
    }
}

/// Writes a whole number.
pub fn integer(out: &mut Vec<u8>, v: i64) {
    if v < 0 {
        out.push(b'-');
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = v.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes milliseconds as seconds: whole, or with exactly three decimals.
pub fn timestamp(out: &mut Vec<u8>, ms: i64) {
    if ms < 0 {
        out.push(b'-');
    }
    let magnitude = ms.unsigned_abs();
    // At most 2^63 / 1000, so it fits.
    integer(out, (magnitude / 1000) as i64);
    let fraction = magnitude % 1000;
    if fraction != 0 {
        let digit = |n: u64| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(fraction / 100), digit(fraction / 10), digit(fraction)]);
    }
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
    fn values_as_go_writes_them() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (9.999e-7, "9.999e-07"),
            (1e-7, "1e-07"),
            (-1.25e-10, "-1.25e-10"),
            (5e-324, "5e-324"),
            (1e20, "100000000000000000000"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (-1.7976931348623157e308, "-1.7976931348623157e+308"),
            (9007199254740993.0, "9007199254740992"),
            (0.30000000000000004, "0.30000000000000004"),
            (1795220319.38, "1795220319.38"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(shown(|out| value(out, v)), text);
        }
    }

    #[test]
    fn times_have_none_or_three_decimals() {
        for (ms, text) in [
            (0, "0"),
            (1000, "1"),
            (1_795_220_319_380, "1795220319.380"),
            (1, "0.001"),
            (-1500, "-1.500"),
            (-1, "-0.001"),
            (i64::MAX, "9223372036854775.807"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            assert_eq!(shown(|out| timestamp(out, ms)), text);
        }
    }

    #[test]
    fn exponent_form() {
        assert_eq!(shown(|out| exponent(out, 1.0)), "1e+00");
        assert_eq!(shown(|out| exponent(out, 12.5)), "1.25e+01");
        assert_eq!(shown(|out| json_float(out, f64::NAN)), "null");
    }

    #[test]
    fn values_on_scraped_pages() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (-1_234_567.5, "-1.2345675e+06"),
            (0.0001, "0.0001"),
            (0.000099, "9.9e-05"),
            (0.1, "0.1"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(shown(|out| exposition(out, v)), text);
        }
    }

    proptest! {
        #[test]
        fn every_value_reads_back(bits: u64) {
            let v = f64::from_bits(bits);
            let text = shown(|out| value(out, v));
            let back: f64 = text.parse().unwrap();
            prop_assert!(back.to_bits() == bits || (v.is_nan() && back.is_nan()), "{text}");
            let has_exponent = text.contains('e');
            let outside = v.is_finite() && v != 0.0 && !(1e-6..1e21).contains(&v.abs());
            prop_assert_eq!(has_exponent, outside);
        }

        #[test]
        fn integers(v: i64) {
            prop_assert_eq!(shown(|out| integer(out, v)), v.to_string());
        }
    }
}
