//! Metrics of the logs. Made before all others, since the process log is there before a configuration is.

use prometheus::{Error, IntCounter, IntCounterVec, Opts, Registry};

/// Both have the label `log`.
#[derive(Clone)]
pub struct LogMetrics {
    dropped: IntCounterVec,
    errors: IntCounterVec,
}

impl LogMetrics {
    /// With a series for each of `logs` from the start.
    pub fn new(logs: &[&str]) -> Result<Self, Error> {
        let make = Maker(logs);
        Ok(Self {
            dropped: make
                .counters("log_lines_dropped_total", "Log lines lost: they could not be written, or not in time")?,
            errors: make.counters("log_write_errors_total", "Times that a log could not be written or opened")?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), Error> {
        registry.register(Box::new(self.dropped.clone()))?;
        registry.register(Box::new(self.errors.clone()))
    }

    pub fn dropped(&self, log: &str) -> IntCounter {
        self.dropped.with_label_values(&[log])
    }

    pub fn errors(&self, log: &str) -> IntCounter {
        self.errors.with_label_values(&[log])
    }
}

/// Makes what is registered later.
struct Maker<'a>(&'a [&'a str]);

impl Maker<'_> {
    fn counters(&self, name: &str, help: &str) -> Result<IntCounterVec, Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), &["log"])?;
        for log in self.0 {
            counters.with_label_values(&[log]);
        }
        Ok(counters)
    }
}
