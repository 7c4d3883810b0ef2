//! Request parameters: from the URL and a form body, and read as times, durations, numbers and switches.
//!
//! The rules and the texts of refusal are Prometheus's: values of the body come before those of the URL, an
//! empty value counts as absent, unknown parameters are ignored.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use http::{Method, header};

use crate::Problem;

/// Longest form body. Selectors of dashboards are long, never that long.
const MAX_FORM_BYTES: usize = 10 << 20;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Names and values in the order in which they count.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// From a form body and the query of a URL.
    pub fn parse(body: &[u8], url: &[u8]) -> Result<Params, Problem> {
        let mut pairs = Vec::new();
        for text in [body, url] {
            for pair in text.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
                let mut halves = pair.splitn(2, |b| *b == b'=');
                let name = decode(halves.next().unwrap_or_default(), true)?;
                let value = decode(halves.next().unwrap_or_default(), true)?;
                pairs.push((name, value));
            }
        }
        Ok(Params { pairs })
    }

    /// The first value of `name`; empty if absent.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time in milliseconds; must be given.
    pub fn time(&self, name: &str) -> Result<i64, Problem> {
        parse_time(self.get(name)).map_err(|why| Problem::parameter(name, why))
    }

    /// A time in milliseconds, if given.
    pub fn optional_time(&self, name: &str) -> Result<Option<i64>, Problem> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_time(text)
                .map(Some)
                .map_err(|why| Problem::parameter(name, format!("invalid time value for '{name}': {why}"))),
        }
    }

    /// A duration in nanoseconds, if given.
    pub fn optional_duration(&self, name: &str) -> Result<Option<i64>, Problem> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration(text).map(Some).map_err(|why| Problem::parameter(name, why)),
        }
    }

    /// `limit`; 0 means none.
    pub fn limit(&self) -> Result<usize, Problem> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(0);
        }
        let limit: i64 = text.parse().map_err(|_| {
            Problem::parameter("limit", format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
        })?;
        usize::try_from(limit).map_err(|_| Problem::parameter("limit", "limit must be non-negative"))
    }

    /// A switch as Go reads it, if given.
    pub fn optional_bool(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.get(name) {
            "" => Ok(None),
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
            text => Err(Problem::bad_data(format!(
                "'{name}' parameter: strconv.ParseBool: parsing {text:?}: invalid syntax"
            ))),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Params, Problem> {
        let url = request.uri().query().unwrap_or("").as_bytes().to_vec();
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let media = media.split(';').next().unwrap_or("").trim();
        if *request.method() != Method::POST
            || !media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        {
            return Params::parse(b"", &url);
        }
        let reading = axum::body::to_bytes(request.into_body(), MAX_FORM_BYTES);
        let body = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                return Err(Problem::bad_data(format!(
                    "error parsing form values: {error} (a form may have {MAX_FORM_BYTES} bytes)"
                )));
            }
            Err(_) => {
                return Err(Problem::bad_data("error parsing form values: the body did not arrive in time"));
            }
        };
        Params::parse(&body, &url)
    }
}

/// Undoes percent encoding; `plus` reads `+` as a space, as forms have it.
pub fn decode(text: &[u8], plus: bool) -> Result<String, Problem> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let hex = |i: usize| text.get(i).and_then(|b| char::from(*b).to_digit(16));
                let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2)) else {
                    let end = text.len().min(at + 3);
                    let shown = String::from_utf8_lossy(&text[at..end]).into_owned();
                    return Err(Problem::bad_data(format!(
                        "error parsing form values: invalid URL escape {shown:?}"
                    )));
                };
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            b'+' if plus => out.push(b' '),
            b => out.push(b),
        }
        at += 1;
    }
    String::from_utf8(out)
        .map_err(|_| Problem::bad_data("error parsing form values: a parameter is not valid UTF-8"))
}

/// Reads a time: seconds as a float, or RFC 3339. Milliseconds since the epoch.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let refused = || format!("cannot parse {text:?} to a valid timestamp");
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds.trunc() * 1000.0) + (seconds.fract() * 1000.0).round();
        // Also refuses NaN and infinities.
        if ms.abs() < 9.2e18 {
            return Ok(ms as i64);
        }
        return Err(refused());
    }
    match text {
        // The two ends of time, as Prometheus's own clients send them.
        "-292273086-05-16T16:47:06Z" => Ok(i64::MIN),
        "+292277025-08-18T07:12:54.999999999Z" => Ok(i64::MAX),
        _ => rfc3339(text).ok_or_else(refused),
    }
}

fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let is = |at: usize, wanted: u8| bytes.get(at) == Some(&wanted);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last_day = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    if !(1..=12).contains(&month) || !(1..=last_day).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let mut at = 19;
    let mut ms = 0.0;
    if is(at, b'.') {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        ms = (text[at..at + 1 + digits].parse::<f64>().ok()? * 1000.0).floor();
        at += 1 + digits;
    }
    let offset = match bytes.get(at)? {
        b'Z' if text.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == at + 6 && is(at + 3, b':') => {
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    Some(seconds * 1000 + ms as i64)
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years are counted from March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Reads a duration: seconds as a float, or as Prometheus writes it. Nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * 1e9;
        // Also refuses NaN, which lies in no range.
        if !(i64::MIN as f64..i64::MAX as f64).contains(&nanos) {
            return Err(format!("cannot parse {text:?} to a valid duration. It overflows int64"));
        }
        return Ok(nanos as i64);
    }
    match model::parse_duration(text) {
        Ok(ms) => Ok(ms.saturating_mul(1_000_000)),
        Err(_) => Err(format!("cannot parse {text:?} to a valid duration")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn body_comes_first_and_plus_is_a_space() {
        let params = Params::parse(b"query=a+%2B+b&match[]=x", b"query=url&match%5B%5D=y&empty=").unwrap();
        assert_eq!(params.get("query"), "a + b");
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((params.get("empty"), params.get("absent")), ("", ""));
        assert!(Params::parse(b"", b"a=%zz").unwrap_err().message.contains("invalid URL escape \"%zz\""));
        assert!(Params::parse(b"", b"a=%ff").is_err());
    }

    #[test]
    fn times() {
        for (text, ms) in [
            ("4", 4000),
            ("1795220319.38", 1_795_220_319_380),
            ("1795220319.3804", 1_795_220_319_380),
            ("-1.5", -1500),
            ("1e9", 1_000_000_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-21T02:17:04.123456789Z", 1_795_227_424_123),
            ("2026-11-21T04:17:04+02:00", 1_795_227_424_000),
            ("2024-02-29T23:59:59.5-00:30", 1_709_252_999_500),
            ("1969-12-31T23:59:59Z", -1000),
        ] {
            assert_eq!(parse_time(text), Ok(ms), "{text}");
        }
        for bad in [
            "",
            "abc",
            "NaN",
            "Inf",
            "1e300",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0200",
        ] {
            assert_eq!(parse_time(bad), Err(format!("cannot parse {bad:?} to a valid timestamp")));
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("15"), Ok(15_000_000_000));
        assert_eq!(parse_duration("0.5"), Ok(500_000_000));
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(parse_duration("1ns"), Err("cannot parse \"1ns\" to a valid duration".to_owned()));
        assert!(parse_duration("1e300").unwrap_err().ends_with("It overflows int64"));
        assert!(parse_duration("NaN").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_input_is_answered(bytes: Vec<u8>, text: String) {
            let _ = Params::parse(&bytes, text.as_bytes());
            let _ = parse_time(&text);
            let _ = parse_duration(&text);
        }

        #[test]
        fn every_second_reads_back(seconds in -62_135_596_800i64..253_402_300_799) {
            prop_assert_eq!(parse_time(&seconds.to_string()), Ok(seconds * 1000));
        }
    }
}
