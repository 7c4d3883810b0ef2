//! Whatever text comes in, reading ends with a value or a message; what is shown reads back as the same value.

use std::path::Path;

use proptest::prelude::*;
use settings::{
    ByteSize, FileText, LabelPair, Listen, Load, Log, Objstore, Scalar, SecretSource, Span, substitute,
};

settings::settings! {
    /// Any.
    pub struct Any {
        /// Text.
        ["text"] text: String = String::new();
        /// Texts.
        ["texts"] texts: Vec<String> = Vec::new();
        /// Time.
        ["span"] span: Span = Span::ZERO;
        [..] objstore: Objstore;
        [..] log: Log;
    }
}

fn read(text: &str) -> Result<Any, settings::Error> {
    let command = settings::with_flags::<Any>(clap::Command::new("any"));
    let matches = command.try_get_matches_from(["any"]).expect("no flags are fine");
    settings::load::<Any>(&matches, Some(FileText { path: Path::new("f"), text })).map(|l| l.settings)
}

fn round_trip<T: Scalar + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(value) = T::parse(text) {
        assert_eq!(T::parse(&value.show()), Ok(value), "{text:?}");
    }
}

/// A YAML scalar in double quotes.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || c == '\u{feff}' => {
                format!("\\U{:08x}", c as u32)
            }
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

proptest! {
    #[test]
    fn scalars(text in ".*") {
        round_trip::<Span>(&text);
        round_trip::<ByteSize>(&text);
        round_trip::<Listen>(&text);
        round_trip::<LabelPair>(&text);
        round_trip::<SecretSource>(&text);
    }

    #[test]
    fn scalars_that_look_right(text in "[0-9.]{0,6}(y|w|d|h|m|s|ms|KiB|GB|)[0-9]{0,3}(s|ms|)") {
        round_trip::<Span>(&text);
        round_trip::<ByteSize>(&text);
    }

    #[test]
    fn labels_hold_any_value(value in ".*") {
        let pair = LabelPair::new("a", value);
        prop_assert_eq!(LabelPair::parse(&pair.to_string()), Ok(pair));
    }

    #[test]
    fn files(text in "(?s).*") {
        let _ = read(&text);
    }

    #[test]
    fn files_that_look_right(
        lines in proptest::collection::vec("(text|texts|span|log.level|x)( |:|: )(\\[|\\{|'|\"|&a|\\*a|- |1|~|a|#| )*", 0..6),
    ) {
        let _ = read(&lines.join("\n"));
    }

    #[test]
    fn texts_come_through_a_file_unchanged(text in "\\PC*", texts in proptest::collection::vec("\\PC*", 0..4)) {
        let list: Vec<String> = texts.iter().map(|t| quoted(t)).collect();
        let any = read(&format!("text: {}\ntexts: [{}]\n", quoted(&text), list.join(", ")));
        let any = any.map_err(|e| TestCaseError::fail(e.message))?;
        prop_assert_eq!(any.text, text);
        prop_assert_eq!(any.texts, texts);
    }

    #[test]
    fn texts_without_references_stay(text in "[^$]*") {
        prop_assert_eq!(substitute(&text, |_| None), Ok(text));
    }

    #[test]
    fn any_reference(text in "([$()A-Z a-z]|\n)*") {
        let _ = substitute(&text, |name| (name.len() % 2 == 0).then(|| "v".to_owned()));
    }
}

#[test]
fn the_struct_is_described() {
    assert_eq!(Any::all().len(), 7);
}
