//! The commands of a script.

use model::{Labels, Pattern};

use super::series::{Item, Line, parse_line, parse_load_line};

/// One command and the line on which it stands, from 1.
pub(super) struct Command {
    pub(super) line: usize,
    pub(super) kind: CommandKind,
}

pub(super) enum CommandKind {
    Clear,
    Load { step: i64, series: Vec<Loaded>, with_nhcb: bool },
    Eval(Box<Eval>),
}

/// One series of a `load` block.
pub(super) struct Loaded {
    pub(super) labels: Labels,
    pub(super) items: Vec<Item>,
    /// When each sample began, as an offset from its time; empty where nothing is said of it.
    pub(super) starts: Vec<Option<i64>>,
}

/// A query with its times and what is expected of it.
#[derive(Default)]
pub(super) struct Eval {
    pub(super) query: String,
    /// Milliseconds; the step is 0 for an instant query.
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
    pub(super) ordered: bool,
    /// None: not expected to fail.
    pub(super) fail: Option<Vec<Text>>,
    pub(super) warnings: Option<Vec<Text>>,
    pub(super) infos: Option<Vec<Text>>,
    pub(super) no_warnings: bool,
    pub(super) no_infos: bool,
    pub(super) string: Option<String>,
    pub(super) scalar: Option<f64>,
    /// The result is a range vector with these times.
    pub(super) matrix: Option<(i64, i64, i64)>,
    pub(super) series: Vec<(Labels, Vec<Item>)>,
    /// Why the block cannot be judged.
    pub(super) broken: Option<String>,
}

/// What a message must be.
pub(super) enum Text {
    Any,
    Exactly(String),
    Matching(Box<Pattern>),
}

impl Text {
    pub(super) fn matches(&self, message: &str) -> bool {
        match self {
            Text::Any => true,
            Text::Exactly(text) => text == message,
            Text::Matching(pattern) => pattern.regex().is_match(message),
        }
    }
}

/// Reads a script.
pub(super) fn parse(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> = text
        .split('\n')
        .map(|line| {
            let line = line.trim();
            if line.starts_with('#') { "" } else { line }
        })
        .collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let (line, first) = (at + 1, lines[at]);
        at += 1;
        if first.is_empty() {
            continue;
        }
        let block_end = lines[at..].iter().position(|l| l.is_empty()).map_or(lines.len(), |n| at + n);
        let fail = |message: String| format!("line {line}: {message}");
        let word = first.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        let kind = if word == "clear" {
            CommandKind::Clear
        } else if word.starts_with("load") {
            let step = first.split_whitespace().nth(1).ok_or_else(|| fail("load without a step".into()))?;
            let step = time(step).map_err(fail)?;
            let lines = std::mem::replace(&mut at, block_end)..block_end;
            let series = loaded(&lines_of(&lines, text)).map_err(fail)?;
            CommandKind::Load { step, series, with_nhcb: word == "load_with_nhcb" }
        } else if word.starts_with("eval") {
            let lines = std::mem::replace(&mut at, block_end)..block_end;
            let mut eval = header(first).map_err(fail)?;
            if let Err(message) = expectations(&mut eval, &lines_of(&lines, text)) {
                eval.broken = Some(message);
            }
            CommandKind::Eval(Box::new(eval))
        } else {
            return Err(fail(format!("invalid command {first:?}")));
        };
        out.push(Command { line, kind });
    }
    Ok(out)
}

fn loaded(lines: &[&str]) -> Result<Vec<Loaded>, String> {
    let mut out = Vec::new();
    let mut begun: Option<(Labels, Vec<Option<i64>>)> = None;
    for line in lines {
        match parse_load_line(line)? {
            Line::Starts(labels, starts) => {
                if begun.is_some() {
                    return Err(format!("no samples between two lines of start times: {line}"));
                }
                begun = Some((labels, starts));
            }
            Line::Samples(labels, items) => {
                let starts = match begun.take() {
                    None => Vec::new(),
                    Some((of, starts)) if of == labels && starts.len() == items.len() => starts,
                    Some(_) => return Err(format!("start times before it do not fit: {line}")),
                };
                out.push(Loaded { labels, items, starts });
            }
        }
    }
    match begun {
        Some((labels, _)) => Err(format!("start times of {labels} without samples")),
        None => Ok(out),
    }
}

fn lines_of<'t>(range: &std::ops::Range<usize>, text: &'t str) -> Vec<&'t str> {
    text.split('\n').skip(range.start).take(range.len()).map(str::trim).collect()
}

fn time(text: &str) -> Result<i64, String> {
    let (sign, plain) = match text.strip_prefix('-') {
        Some(plain) => (-1, plain),
        None => (1, text),
    };
    model::parse_duration(plain).map(|ms| sign * ms).map_err(|e| e.to_string())
}

/// Takes the next word off.
fn word<'t>(text: &mut &'t str) -> &'t str {
    let trimmed = text.trim_start();
    let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
    *text = &trimmed[end..];
    &trimmed[..end]
}

fn header(line: &str) -> Result<Eval, String> {
    let mut rest = line;
    let mut eval = Eval::default();
    match word(&mut rest) {
        "eval" => {}
        "eval_fail" => eval.fail = Some(Vec::new()),
        "eval_warn" => eval.warnings = Some(vec![Text::Any]),
        "eval_info" => eval.infos = Some(vec![Text::Any]),
        "eval_ordered" => eval.ordered = true,
        other => return Err(format!("invalid command {other:?}")),
    }
    let expect = |keyword: &str, rest: &mut &str| match word(rest) {
        found if found == keyword => Ok(()),
        found => Err(format!("expected {keyword:?}, got {found:?} in {line:?}")),
    };
    match word(&mut rest) {
        "instant" => {
            let mut ahead = rest;
            if word(&mut ahead) == "at" {
                rest = ahead;
                eval.start = time(word(&mut rest))?;
            }
            eval.end = eval.start;
        }
        "range" => {
            expect("from", &mut rest)?;
            eval.start = time(word(&mut rest))?;
            expect("to", &mut rest)?;
            eval.end = time(word(&mut rest))?;
            expect("step", &mut rest)?;
            eval.step = time(word(&mut rest))?;
        }
        other => return Err(format!("expected \"instant\" or \"range\", got {other:?}")),
    }
    eval.query = rest.trim().to_owned();
    Ok(eval)
}

fn expectations(eval: &mut Eval, lines: &[&str]) -> Result<(), String> {
    for &line in lines {
        let mut rest = line;
        match word(&mut rest) {
            "expected_fail_message" => {
                eval.fail.get_or_insert_default().push(Text::Exactly(rest.trim().to_owned()));
                break;
            }
            "expected_fail_regexp" => {
                eval.fail.get_or_insert_default().push(pattern(rest.trim())?);
                break;
            }
            "expect" => expectation(eval, rest.trim())?,
            _ => {
                if let Some(value) = bare_number(line) {
                    eval.scalar = Some(value);
                    break;
                }
                eval.series.push(parse_line(line)?);
            }
        }
    }
    Ok(())
}

fn bare_number(line: &str) -> Option<f64> {
    if line.contains(char::is_whitespace) {
        return None;
    }
    let plain = line.trim_start_matches(['+', '-']);
    if let Some(digits) = plain.strip_prefix("0x") {
        let value = i64::from_str_radix(digits, 16).ok()? as f64;
        return Some(if line.starts_with('-') { -value } else { value });
    }
    line.parse().ok()
}

fn pattern(text: &str) -> Result<Text, String> {
    // Patterns are anchored by themselves; these are searched for.
    let pattern = Pattern::new(&format!(".*(?:{text}).*")).map_err(|e| e.to_string())?;
    Ok(Text::Matching(Box::new(pattern)))
}

fn expectation(eval: &mut Eval, text: &str) -> Result<(), String> {
    let mut rest = text;
    let what = word(&mut rest);
    let rest = rest.trim();
    let message = || match (rest.strip_prefix("msg:"), rest.strip_prefix("regex:")) {
        (Some(text), _) => Ok(Text::Exactly(text.trim().to_owned())),
        (_, Some(text)) => pattern(text.trim()),
        _ if rest.is_empty() => Ok(Text::Any),
        _ => Err(format!("cannot read expectation {text:?}")),
    };
    match what {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail.get_or_insert_default().push(message()?),
        "warn" => eval.warnings.get_or_insert_default().push(message()?),
        "info" => eval.infos.get_or_insert_default().push(message()?),
        "no_warn" => eval.no_warnings = true,
        "no_info" => eval.no_infos = true,
        "string" => eval.string = Some(crate::parse::unquote(rest)?),
        "range" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["vector", "from", start, "to", end, "step", step] = words[..] else {
                return Err(format!("cannot read expectation {text:?}"));
            };
            eval.matrix = Some((time(start)?, time(end)?, time(step)?));
        }
        _ => return Err(format!("cannot read expectation {text:?}")),
    }
    Ok(())
}
