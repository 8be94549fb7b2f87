//! Output of commands. A reader that has closed the pipe, such as `head`, has read enough: that is no failure, and no
//! reason to panic, as the standard library's own macros do. Any other failure to print is one, such as a full disk.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use super::Failure;

/// A line, or several, on standard output.
pub fn print(text: impl Display) -> Result<(), Failure> {
    printed(writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()))
}

/// A line, or several, on standard error. Where it cannot be written there is no other place to say so.
pub fn note(text: impl Display) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Escapes control characters: a text that another process has written must not send control sequences to the terminal.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Returns the result of writing to standard output.
pub fn printed(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
