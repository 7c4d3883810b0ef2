//! Flags from settings, read the way kingpin reads them: `--flag=value`, `--flag value`, `--switch`,
//! `--no-switch`, `--switch=false`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::{Load, Setting};

/// The flag that names the YAML file.
pub const CONFIG_FILE: &str = "config.file";

/// Adds the flags of `S`, and `--config.file`, to a command.
pub fn with_flags<S: Load>(command: Command) -> Command {
    let file = Arg::new(CONFIG_FILE)
        .long(CONFIG_FILE)
        .value_name("PATH")
        .value_parser(NonEmptyStringValueParser::new())
        .help("YAML file whose keys are the flags below; a flag given here wins over the file.");
    let mut command = command.arg(file);
    for setting in S::all() {
        for arg in args(&setting) {
            command = command.arg(arg);
        }
    }
    command
}

/// The file that `--config.file` names.
pub fn config_file(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<String>(CONFIG_FILE).map(PathBuf::from)
}

/// The name of a switch's twin.
fn twin(setting: &Setting) -> String {
    format!("no-{}", setting.name)
}

fn args(setting: &Setting) -> Vec<Arg> {
    let mut arg = Arg::new(setting.name)
        .long(setting.name)
        .help(help(setting, " "))
        .long_help(help(setting, "\n"))
        .hide(setting.hidden);
    // A role's own settings stand together with --help and --config.file, as clap has them without a heading.
    if setting.heading != Setting::OWN {
        arg = arg.help_heading(setting.heading.clone());
    }
    if setting.switch {
        let arg = arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("true|false")
            .hide_possible_values(true)
            .action(ArgAction::Set)
            .overrides_with(twin(setting));
        let no = Arg::new(twin(setting))
            .long(twin(setting))
            .hide(true)
            .action(ArgAction::SetTrue)
            .overrides_with(setting.name);
        return vec![arg, no];
    }
    let action = if setting.repeatable { ArgAction::Append } else { ArgAction::Set };
    vec![arg.num_args(1).value_name(setting.placeholder).allow_negative_numbers(true).action(action)]
}

/// The help text with its default, which stands after `gap`.
fn help(setting: &Setting, gap: &str) -> String {
    let mut help = setting.help.clone();
    if setting.repeatable && !help.contains("several times") {
        help.push_str(" May be given several times.");
    }
    let default = setting.default.join(", ");
    let off = setting.switch && default == "false";
    if !default.is_empty() && !off {
        help.push_str(&format!("{gap}[default: {default}]"));
    }
    help
}

/// The texts that were given for a setting; none if it was not mentioned.
pub(crate) fn given(matches: &ArgMatches, setting: &Setting) -> Option<Vec<String>> {
    if setting.switch && matches.get_flag(&twin(setting)) {
        return Some(vec!["false".to_owned()]);
    }
    matches.get_many::<String>(setting.name).map(|texts| texts.cloned().collect())
}
