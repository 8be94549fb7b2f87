//! The binary as its users start it.

use std::process::{Child, Command, Output, Stdio};

/// `sentry-edge ARGUMENTS`, to its end.
pub fn sentry_edge(arguments: &[&str]) -> Output {
    sentry_edge_with_input(arguments, "")
}

pub fn sentry_edge_with_input(arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_sentry-edge"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have gone already.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

/// `sentry-edge ARGUMENTS`, still running.
pub fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sentry-edge"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The same, with a variable in its environment.
pub fn start_with_variable((name, value): (&str, &str), arguments: &[&str]) -> Child {
    Command::new("env")
        .arg(format!("{name}={value}"))
        .arg(env!("CARGO_BIN_EXE_sentry-edge"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The same, with so many descriptors at most.
pub fn start_with_descriptors(most: usize, arguments: &[&str]) -> Child {
    Command::new("sh")
        .args(["-c", "ulimit -n \"$1\"; shift; exec \"$@\"", "sh", &most.to_string()])
        .arg(env!("CARGO_BIN_EXE_sentry-edge"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
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
