//! An amount of bytes as operators write it: `512MiB`, `10GB`, `1048576`.

use std::fmt;

use crate::Scalar;

/// Bytes. As in Thanos and Prometheus, `KB` and `KiB` both mean 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// From large to small; each name with an optional `iB` or `B` after it.
const UNITS: [(&str, u32); 6] = [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];

impl ByteSize {
    pub const fn from_bytes(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    pub const fn from_kib(kib: u64) -> ByteSize {
        ByteSize(kib << 10)
    }

    pub const fn from_mib(mib: u64) -> ByteSize {
        ByteSize(mib << 20)
    }

    pub const fn from_gib(gib: u64) -> ByteSize {
        ByteSize(gib << 30)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Scalar for ByteSize {
    const PLACEHOLDER: &'static str = "BYTES";

    fn parse(text: &str) -> Result<ByteSize, String> {
        let wrong = || format!("{text:?} is not an amount of bytes such as 512MiB, 2GB or 1048576");
        let number = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, unit) = text.split_at(number);
        let unit = unit.trim_start();
        let shift = match unit.strip_suffix("iB").or(unit.strip_suffix('B')).unwrap_or(unit) {
            "" if !unit.starts_with('i') => 0,
            name => {
                let found = UNITS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.ok_or_else(wrong)?.1
            }
        };
        let too_much = || format!("{text:?} is more than 16 EiB");
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(ByteSize).ok_or_else(too_much);
        }
        let bytes = digits.parse::<f64>().map_err(|_| wrong())? * (1u64 << shift) as f64;
        if bytes >= u64::MAX as f64 {
            return Err(too_much());
        }
        Ok(ByteSize(bytes.round() as u64))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that divides it without a rest: `512MiB`, `1536KiB`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, shift) in UNITS {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{name}iB", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_show() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("1000", 1000, "1000"),
            ("512MiB", 512 << 20, "512MiB"),
            ("512MB", 512 << 20, "512MiB"),
            ("10GB", 10 << 30, "10GiB"),
            ("1.5MiB", 1536 << 10, "1536KiB"),
            ("2g", 2 << 30, "2GiB"),
            ("7B", 7, "7"),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), shown);
            assert_eq!(ByteSize::parse(shown), Ok(ByteSize(bytes)));
        }
        for bad in ["", "MiB", "1XB", "-1", "1.2.3", "1iB", "99999999999EiB", "18446744073709551616"] {
            assert!(ByteSize::parse(bad).is_err(), "{bad}");
        }
    }
}
