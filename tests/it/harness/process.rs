//! The binary as its users start it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub const BINARY: &str = env!("CARGO_BIN_EXE_sentry-edge");

/// The variable by which systemd names a runtime directory, and the folder of the configuration among the arguments: the
/// edges of tests have their control sockets beside their files.
fn runtime_dir(arguments: &[&str]) -> Option<(&'static str, String)> {
    let at = arguments.iter().position(|argument| *argument == "-c")?;
    let folder = Path::new(arguments.get(at + 1)?).parent()?;
    Some(("RUNTIME_DIRECTORY", folder.to_str()?.to_owned()))
}

/// The binary, or a program that starts it, with what all of its commands have in common.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.envs(runtime_dir(arguments));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `sentry-edge ARGUMENTS`, to its end.
pub fn sentry_edge(arguments: &[&str]) -> Output {
    sentry_edge_with_input(arguments, "")
}

pub fn sentry_edge_with_input(arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = command(BINARY, arguments).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    // A command that does not read its input may have gone already.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

/// `sentry-edge ARGUMENTS`, still running.
pub fn start(arguments: &[&str]) -> Child {
    command(BINARY, arguments).args(arguments).spawn().unwrap()
}

/// The same, with a variable in its environment.
pub fn start_with_variable((name, value): (&str, &str), arguments: &[&str]) -> Child {
    command("env", arguments).arg(format!("{name}={value}")).arg(BINARY).args(arguments).spawn().unwrap()
}

/// The same from a link in the folder of its configuration, `edge`, where another program can take its place.
pub fn start_linked(arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let folder = runtime_dir(arguments).unwrap().1;
    let link = Path::new(&folder).join("edge");
    std::os::unix::fs::symlink(BINARY, &link).unwrap();
    command(link.to_str().unwrap(), arguments).envs(variables.iter().copied()).args(arguments).spawn().unwrap()
}

/// The same, with so many descriptors at most.
pub fn start_with_descriptors(most: usize, arguments: &[&str]) -> Child {
    command("sh", arguments)
        .args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh", &most.to_string()])
        .arg(BINARY)
        .args(arguments)
        .spawn()
        .unwrap()
}

/// The same, with these limits of descriptors, the soft and the hard one.
pub fn start_with_soft_limit(soft: usize, hard: usize, arguments: &[&str]) -> Child {
    command("sh", arguments)
        .args(["-c", "ulimit -Sn \"$1\"; ulimit -Hn \"$2\"; shift 2; exec \"$@\"", "sh"])
        .args([soft.to_string(), hard.to_string()])
        .arg(BINARY)
        .args(arguments)
        .spawn()
        .unwrap()
}

/// The same, with another limit: an option of `ulimit`, and its value.
pub fn start_with_limit((option, value): (&str, usize), arguments: &[&str]) -> Child {
    command("sh", arguments)
        .args(["-c", "ulimit \"$1\" \"$2\"; shift 2; exec \"$@\"", "sh", option, &value.to_string()])
        .arg(BINARY)
        .args(arguments)
        .spawn()
        .unwrap()
}

/// Sends a signal to a process that we started, by its id.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
