//! The action of each signal. No signal that an administrator or a script for another server may send ends the process
//! by its default action.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    Reload,
    Reopen,
    Drain,
    StopNow,
    Upgrade,
    Ignore,
}

/// Signals by their numbers on Linux (signal(7), x86 and ARM). Signals that report a fault in the program (SEGV, ABRT
/// and their like), that stop a job at a terminal (TSTP), or that do nothing by default keep their default action; PIPE
/// is ignored from the start. XFSZ would end a process whose log file reaches `ulimit -f`.
const NAMED_SIGNALS: [(i32, &str, SignalAction); 18] = [
    (1, "SIGHUP", SignalAction::Reload),
    (2, "SIGINT", SignalAction::StopNow),
    (3, "SIGQUIT", SignalAction::Drain),
    (10, "SIGUSR1", SignalAction::Reopen),
    (12, "SIGUSR2", SignalAction::Upgrade),
    (14, "SIGALRM", SignalAction::Ignore),
    (15, "SIGTERM", SignalAction::Drain),
    (16, "SIGSTKFLT", SignalAction::Ignore),
    (18, "SIGCONT", SignalAction::Ignore),
    (21, "SIGTTIN", SignalAction::Ignore),
    (22, "SIGTTOU", SignalAction::Ignore),
    (24, "SIGXCPU", SignalAction::Ignore),
    (25, "SIGXFSZ", SignalAction::Ignore),
    (26, "SIGVTALRM", SignalAction::Ignore),
    (27, "SIGPROF", SignalAction::Ignore),
    (28, "SIGWINCH", SignalAction::Ignore),
    (29, "SIGIO", SignalAction::Ignore),
    (30, "SIGPWR", SignalAction::Ignore),
];

/// Real-time signals end a process too. The C library keeps the first two or three for itself.
const REAL_TIME_SIGNALS: std::ops::RangeInclusive<i32> = 34..=64;

pub struct Signals(Vec<(String, SignalAction, Signal)>);

impl Signals {
    /// Registers all signals. Returns an error when one that has an action cannot be registered.
    pub fn new() -> io::Result<Self> {
        let mut registered = Vec::new();
        let named = NAMED_SIGNALS.iter().map(|&(number, name, action)| (number, name.to_owned(), action));
        let real_time =
            REAL_TIME_SIGNALS.map(|number| (number, format!("real-time signal {number}"), SignalAction::Ignore));
        for (number, name, action) in named.chain(real_time) {
            match signal(SignalKind::from_raw(number)) {
                Ok(signal) => registered.push((name, action, signal)),
                Err(error) if action != SignalAction::Ignore => return Err(error),
                // This system has no signal of that number.
                Err(_) => {}
            }
        }
        Ok(Self(registered))
    }

    pub async fn next(&mut self) -> (String, SignalAction) {
        let at = poll_fn(|context| {
            let came = self.0.iter_mut().position(|(_, _, signal)| signal.poll_recv(context).is_ready());
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let (name, action, _) = &self.0[at];
        (name.clone(), *action)
    }
}
