//! The example file of a role, written from its settings: every key, commented out, with help and default.

use std::fmt::Write as _;

use crate::{Load, Setting};

const WIDTH: usize = 108;

/// The text of `config/<role>.yaml`. As it stands it changes nothing: each key shows its default.
pub fn example<S: Load>(role: &str) -> String {
    let mut out = String::new();
    let intro = format!(
        "Settings of `tributary {role}`, for --config.file. Every key is a flag of the same name; a flag given on \
         the command line wins. Each key below shows its default: remove the # to change it."
    );
    comment(&mut out, &intro);
    let mut settings: Vec<Setting> = S::all().into_iter().filter(|s| !s.hidden).collect();
    // What is the role's own comes first, groups follow in their order.
    settings.sort_by_key(|s| s.heading != Setting::OWN);
    let mut heading = Setting::OWN.to_owned();
    for setting in &settings {
        if setting.heading != heading {
            heading.clone_from(&setting.heading);
            let _ = write!(out, "\n# --- {heading} ---\n");
        }
        out.push('\n');
        comment(&mut out, &help(setting));
        let _ = writeln!(out, "#{}: {}", setting.name, value(setting));
    }
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn help(setting: &Setting) -> String {
    let mut help = setting.help.clone();
    if setting.repeatable {
        help.push_str(" A list.");
    }
    if setting.default.is_empty() {
        help.push_str(" Default: none.");
    }
    help
}

fn value(setting: &Setting) -> String {
    if setting.repeatable {
        let items: Vec<String> = setting.default.iter().map(|text| scalar(text)).collect();
        return format!("[{}]", items.join(", "));
    }
    setting.default.first().map(|text| scalar(text)).unwrap_or_default()
}

/// A text as a YAML scalar: plain where that is beyond doubt, else in single quotes.
fn scalar(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    if plain && !text.is_empty() && !text.starts_with('-') {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Wraps a text into comment lines.
fn comment(out: &mut String, text: &str) {
    for paragraph in text.split("\n\n") {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                let _ = writeln!(out, "{line}");
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(out, "{line}");
    }
}
