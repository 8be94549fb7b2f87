//! The commands on `docs/reference/command-line.md`, of clap's definitions.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::{Arg, Command};

use super::hold_part;

#[test]
pub fn the_commands_are_those_of_the_program() {
    let mut root = sentry_edge::cli::command();
    root.build();
    let mut text = String::new();
    for command in root.get_subcommands() {
        describe(command, "sentry-edge", &mut text);
    }
    hold_part("docs/reference/command-line.md", "commands", &text);
}

/// One command, or each of those below it.
fn describe(command: &Command, before: &str, text: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{before} {}", command.get_name());
    if command.has_subcommands() {
        writeln!(text, "### `{name}`\n\n{}\n", sentence(command.get_about())).unwrap();
        for below in command.get_subcommands() {
            describe(below, &name, text);
        }
        return;
    }
    let shown = |argument: &&Arg| {
        !argument.is_hide_set() && !["help", "version", "config"].contains(&argument.get_id().as_str())
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    let mut usage = name.clone();
    for argument in arguments.iter().filter(|argument| argument.is_positional()) {
        let value = value(argument);
        usage.push_str(&if argument.is_required_set() { format!(" {value}") } else { format!(" [{value}]") });
    }
    if command.get_arguments().any(|argument| argument.get_id() == "config") {
        usage.push_str(" -c FILE");
    }
    if arguments.iter().any(|argument| !argument.is_positional()) {
        usage.push_str(" [OPTIONS]");
    }
    let about = command.get_long_about().or(command.get_about());
    writeln!(text, "### `{usage}`\n\n{}\n", sentence(about)).unwrap();
    for argument in &arguments {
        let help = sentence(argument.get_long_help().or(argument.get_help()));
        assert!(!help.is_empty(), "`{name}`: `{}` has no doc comment", argument.get_id());
        let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let default = default.filter(|_| argument.get_action().takes_values());
        let default = default.map(|value| format!(" Default: `{value}`.")).unwrap_or_default();
        writeln!(text, "- `{}`: {help}{default}", spelling(argument)).unwrap();
    }
    if !arguments.is_empty() {
        text.push('\n');
    }
}

/// An argument as it is typed.
fn spelling(argument: &Arg) -> String {
    if argument.is_positional() {
        return value(argument);
    }
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = if argument.get_action().takes_values() { format!(" {}", value(argument)) } else { String::new() };
    format!("{}{value}", names.join("`, `"))
}

fn value(argument: &Arg) -> String {
    let words: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let name = match argument.get_value_names() {
        _ if !words.is_empty() => words.join("|"),
        Some([name, ..]) => name.to_string(),
        _ => argument.get_id().as_str().to_uppercase(),
    };
    let takes_several = argument.get_num_args().is_some_and(|count| count.max_values() > 1);
    if takes_several { format!("{name}…") } else { name }
}

/// A text of clap's, which has no full stop at its end.
fn sentence(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default().trim().replace('\n', " ");
    let ends = text.is_empty() || text.ends_with(['.', ':', ')', '`']);
    if ends { text } else { format!("{text}.") }
}
