//! The process log: what the edge says of itself, by the `log` crate's macros, on standard error.
//!
//! It is written as the other logs are, so that a standard error that is not read blocks no request. Panics are written
//! to it too.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write;
use std::io;
use std::sync::Arc;

use log::{LevelFilter, Log, Metadata, Record};

use super::{LogWriter, Logs};
use crate::clock::Clock;
use crate::config::Level;

/// This crate, which every component of it begins with.
const CRATE: &str = "sentry_edge";

struct ProcessLog {
    writer: Arc<LogWriter>,
    clock: Clock,
}

/// Starts the process log. Text that is written to the returned writer is not changed.
pub fn install(logs: &Logs, level: Level, clock: Clock) -> io::Result<Arc<LogWriter>> {
    let writer = Arc::new(logs.open_process_log()?);
    if log::set_boxed_logger(Box::new(ProcessLog { writer: Arc::clone(&writer), clock })).is_ok() {
        set_level(level);
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = Backtrace::capture();
            let text = panic.to_string().replace('\n', " ");
            match backtrace.status() {
                BacktraceStatus::Captured => log::error!("a thread {text}\n{backtrace}"),
                _ => log::error!("a thread {text}"),
            }
        }));
    }
    Ok(writer)
}

/// Once the configuration has been read.
pub fn set_level(level: Level) {
    log::set_max_level(filter(level));
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::Error,
        Level::Warn => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
    }
}

impl Log for ProcessLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Pingora reports clients' misbehaviour line by line as errors; the access log and metrics have it.
        !metadata.target().starts_with("pingora")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.writer.write_text(&line(&self.clock, record));
        }
    }

    fn flush(&self) {}
}

/// `TIME LEVEL COMPONENT: MESSAGE`.
fn line(clock: &Clock, record: &Record<'_>) -> String {
    let target = record.target();
    let component = target.strip_prefix(CRATE).and_then(|rest| rest.strip_prefix("::")).unwrap_or(target);
    let mut line = String::with_capacity(super::LINE_BYTES);
    // A string takes everything.
    writeln!(line, "{} {:<5} {component}: {}", clock.now().rfc3339(), record.level(), record.args()).ok();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_level_and_component() {
        let record = |target: &'static str| {
            let mut builder = Record::builder();
            builder.level(log::Level::Warn).target(target);
            line(&Clock::default(), &builder.args(format_args!("it is {} o'clock", 12)).build())
        };
        let line = record("sentry_edge::users::watch");
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, "WARN  users::watch: it is 12 o'clock\n");
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        assert!(record("rustls::conn").ends_with(" WARN  rustls::conn: it is 12 o'clock\n"));
    }
}
