//! Metrics of the logs. Made before all others, since the process log is there before a configuration is.

use prometheus::{Error, IntCounter, IntCounterVec, Opts};

use super::help;
use super::maker::Maker;

/// Both have the label `log`.
#[derive(Clone)]
pub struct LogMetrics {
    dropped: IntCounterVec,
    errors: IntCounterVec,
}

impl LogMetrics {
    /// With a series for each of `logs` from the start.
    pub fn new(logs: &[&str]) -> Result<Self, Error> {
        let make = Early(logs);
        Ok(Self {
            dropped: make.counters("log_lines_dropped_total", help::LOG_LINES_DROPPED_TOTAL)?,
            errors: make.counters("log_write_errors_total", help::LOG_WRITE_ERRORS_TOTAL)?,
        })
    }

    pub(super) fn register(&self, make: &Maker<'_>) -> Result<(), Error> {
        make.registered("counter", self.dropped.clone())?;
        make.registered("counter", self.errors.clone())?;
        Ok(())
    }

    pub fn dropped(&self, log: &str) -> IntCounter {
        self.dropped.with_label_values(&[log])
    }

    pub fn errors(&self, log: &str) -> IntCounter {
        self.errors.with_label_values(&[log])
    }
}

/// Makes what is registered later.
struct Early<'a>(&'a [&'a str]);

impl Early<'_> {
    fn counters(&self, name: &str, help: &str) -> Result<IntCounterVec, Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), &["log"])?;
        for log in self.0 {
            counters.with_label_values(&[log]);
        }
        Ok(counters)
    }
}
