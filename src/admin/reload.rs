//! A reload that is requested over the API, and what came of the last one.
//!
//! The process that runs the edge carries reloads out, one at a time, and answers each request with the outcome of one
//! that began after it.

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::deadlines;
use crate::config::fault::FaultReport;

/// Requests that may wait for the process to take them.
const QUEUE: usize = 16;

/// A request, with the place where its outcome is awaited.
pub struct ReloadRequest(pub oneshot::Sender<ReloadOutcome>);

/// What came of a reload.
#[derive(Clone, Debug)]
pub enum ReloadOutcome {
    InEffect {
        /// The hash of the configuration's text.
        hash: String,
        /// Keys that take effect in a new process only.
        restart_required: Vec<&'static str>,
        warnings: Vec<FaultReport>,
    },
    /// The configuration has faults, and the one before stays in effect. Warnings are among the reports.
    Refused(Vec<FaultReport>),
    /// The files could not be read in time.
    Failed(String),
    /// The edge is draining.
    Stopping,
}

/// Where reloads are requested.
#[derive(Clone)]
pub struct ReloadRequests(mpsc::Sender<ReloadRequest>);

impl ReloadRequests {
    pub fn channel() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Requests a reload and waits for its outcome.
    pub async fn reload(&self) -> ReloadOutcome {
        let (sender, outcome) = oneshot::channel();
        if self.0.try_send(ReloadRequest(sender)).is_err() {
            return ReloadOutcome::Failed("too many reloads are waiting".into());
        }
        match tokio::time::timeout(deadlines::RELOAD, outcome).await {
            Ok(outcome) => outcome.unwrap_or(ReloadOutcome::Stopping),
            Err(_) => ReloadOutcome::Failed(format!("no outcome within {} s", deadlines::RELOAD.as_secs())),
        }
    }
}

impl ReloadOutcome {
    /// Returns the name of the outcome.
    pub fn result(&self) -> &'static str {
        match self {
            Self::InEffect { .. } => "ok",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Stopping => "stopping",
        }
    }

    /// Returns what there is to say of it beside its name.
    pub fn details(&self) -> Value {
        match self {
            Self::InEffect { hash, restart_required, warnings } => {
                json!({ "hash": hash, "restart_required": restart_required, "warnings": warnings })
            }
            Self::Refused(reports) => {
                let (warnings, faults): (Vec<_>, Vec<_>) = reports.iter().partition(|report| report.is_warning);
                json!({ "faults": faults, "warnings": warnings })
            }
            Self::Failed(why) => json!({ "why": why }),
            Self::Stopping => json!({}),
        }
    }
}
