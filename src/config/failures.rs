//! The checked types of what becomes of servers that fail and of requests that have met one.

use std::time::Duration;

use super::file::failures::RetryOn;

/// When a server is ejected, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row; those to connect count double.
    pub failures: u32,
    /// For how long at first.
    pub r#for: Duration,
    /// For how long in the end.
    pub at_most: Duration,
    /// The part of a pool's addresses that may be ejected at a time.
    pub max_ejection_percent: u8,
    /// Statuses of responses that count as a failure.
    pub statuses: Vec<u16>,
}

/// When a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often at most.
    pub attempts: usize,
    /// After no connection could be made.
    pub on_connect: bool,
    /// After a kept connection was closed.
    pub on_closed: bool,
    /// After no response came in time, if it is a GET or HEAD.
    pub on_timeout: bool,
    /// The part of all requests that may be sent again.
    pub budget_percent: u8,
}

impl Retry {
    pub fn new(attempts: usize, on: &[RetryOn], budget_percent: u8) -> Self {
        let has = |reason| on.contains(&reason);
        Self {
            attempts,
            on_connect: has(RetryOn::Connect),
            on_closed: has(RetryOn::Closed),
            on_timeout: has(RetryOn::Timeout),
            budget_percent,
        }
    }
}
