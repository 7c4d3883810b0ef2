//! How a typed value is read from text and shown as text.

use std::path::PathBuf;

/// One value that has one text. Implement it for an enum or a type of your own to use it in a setting; `Vec`
/// and `Option` of it follow.
pub trait Scalar: Sized {
    /// What stands for a value in `--help`, as `DURATION`; empty for a switch.
    const PLACEHOLDER: &'static str;

    /// Reads a value; the error says what is accepted.
    fn parse(text: &str) -> Result<Self, String>;

    /// Text that [`Scalar::parse`] reads back as the same value.
    fn show(&self) -> String;
}

/// The type of a setting: a scalar, an optional one, or many.
pub trait Value: Sized {
    const PLACEHOLDER: &'static str;
    /// Whether the flag may be given several times, and the key may hold a list.
    const REPEATABLE: bool;
    /// Whether the flag stands without a value, and has a `--no-` twin.
    const SWITCH: bool;

    /// Reads the texts given, in order; more than one only where repeatable.
    fn read(texts: &[String]) -> Result<Self, String>;

    /// Texts that [`Value::read`] reads back.
    fn texts(&self) -> Vec<String>;
}

impl<T: Scalar> Value for T {
    const PLACEHOLDER: &'static str = T::PLACEHOLDER;
    const REPEATABLE: bool = false;
    const SWITCH: bool = T::PLACEHOLDER.is_empty();

    fn read(texts: &[String]) -> Result<T, String> {
        match texts {
            [text] => T::parse(text),
            [] => Err("a value is needed".to_owned()),
            _ => Err(format!("one value is needed, {} were given", texts.len())),
        }
    }

    fn texts(&self) -> Vec<String> {
        vec![self.show()]
    }
}

impl<T: Scalar> Value for Option<T> {
    const PLACEHOLDER: &'static str = T::PLACEHOLDER;
    const REPEATABLE: bool = false;
    const SWITCH: bool = T::PLACEHOLDER.is_empty();

    /// An empty text is no value, as in Thanos, whose flags have "" for unset.
    fn read(texts: &[String]) -> Result<Option<T>, String> {
        match texts {
            [] => Ok(None),
            [text] if text.is_empty() => Ok(None),
            _ => T::read(texts).map(Some),
        }
    }

    fn texts(&self) -> Vec<String> {
        self.iter().map(Scalar::show).collect()
    }
}

impl<T: Scalar> Value for Vec<T> {
    const PLACEHOLDER: &'static str = T::PLACEHOLDER;
    const REPEATABLE: bool = true;
    const SWITCH: bool = false;

    fn read(texts: &[String]) -> Result<Vec<T>, String> {
        texts.iter().map(|text| T::parse(text)).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.iter().map(Scalar::show).collect()
    }
}

impl Scalar for String {
    const PLACEHOLDER: &'static str = "TEXT";

    fn parse(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Scalar for PathBuf {
    const PLACEHOLDER: &'static str = "PATH";

    fn parse(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() { Err("a path is needed".to_owned()) } else { Ok(PathBuf::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Scalar for bool {
    const PLACEHOLDER: &'static str = "";

    /// The words that Go's `strconv.ParseBool` takes.
    fn parse(text: &str) -> Result<bool, String> {
        match text {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for f64 {
    const PLACEHOLDER: &'static str = "NUMBER";

    fn parse(text: &str) -> Result<f64, String> {
        text.parse().map_err(|_| format!("{text:?} is not a number"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($ty:ty),*) => { $(
        impl Scalar for $ty {
            const PLACEHOLDER: &'static str = "N";

            fn parse(text: &str) -> Result<$ty, String> {
                text.parse()
                    .map_err(|_| format!("{text:?} is not a whole number from {} to {}", <$ty>::MIN, <$ty>::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )* };
}

whole_numbers!(u8, u16, u32, u64, usize, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;

    fn read<V: Value>(texts: &[&str]) -> Result<V, String> {
        V::read(&texts.iter().map(|t| t.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn scalars_options_and_lists() {
        assert_eq!(read::<u32>(&["7"]), Ok(7));
        assert_eq!(read::<u8>(&["256"]), Err("\"256\" is not a whole number from 0 to 255".to_owned()));
        assert!(read::<u32>(&["1", "2"]).is_err());
        assert_eq!(read::<Option<u32>>(&[""]), Ok(None));
        assert_eq!(read::<Option<u32>>(&["3"]), Ok(Some(3)));
        assert_eq!(read::<Vec<u32>>(&["1", "2"]), Ok(vec![1, 2]));
        assert_eq!(read::<Vec<u32>>(&[]), Ok(vec![]));
        assert_eq!(read::<bool>(&["T"]), Ok(true));
        assert!(read::<bool>(&["yes"]).is_err());
        const { assert!(bool::SWITCH && !u32::SWITCH && Vec::<String>::REPEATABLE) };
    }
}
