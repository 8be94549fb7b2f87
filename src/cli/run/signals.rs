//! Which signal asks for what. Whatever an administrator or a script for another server sends, none ends the process by
//! its default action.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Reload,
    Reopen,
    Drain,
    StopNow,
    Upgrade,
    Nothing,
}

/// By their numbers on Linux (signal(7), x86 and ARM). Left to their default are those that tell of a fault in the program
/// (SEGV, ABRT and their like), those that stop a job at a terminal (TSTP), and those that do nothing by default; PIPE is
/// ignored from the start. XFSZ would end a process whose log file meets `ulimit -f`.
const NAMED: [(i32, &str, Wish); 18] = [
    (1, "SIGHUP", Wish::Reload),
    (2, "SIGINT", Wish::StopNow),
    (3, "SIGQUIT", Wish::Drain),
    (10, "SIGUSR1", Wish::Reopen),
    (12, "SIGUSR2", Wish::Upgrade),
    (14, "SIGALRM", Wish::Nothing),
    (15, "SIGTERM", Wish::Drain),
    (16, "SIGSTKFLT", Wish::Nothing),
    (18, "SIGCONT", Wish::Nothing),
    (21, "SIGTTIN", Wish::Nothing),
    (22, "SIGTTOU", Wish::Nothing),
    (24, "SIGXCPU", Wish::Nothing),
    (25, "SIGXFSZ", Wish::Nothing),
    (26, "SIGVTALRM", Wish::Nothing),
    (27, "SIGPROF", Wish::Nothing),
    (28, "SIGWINCH", Wish::Nothing),
    (29, "SIGIO", Wish::Nothing),
    (30, "SIGPWR", Wish::Nothing),
];

/// Real-time signals end a process too. The C library keeps the first two or three for itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

pub struct Signals(Vec<(String, Wish, Signal)>);

impl Signals {
    /// From now on they are heard. Errors when one that matters cannot be.
    pub fn new() -> io::Result<Self> {
        let mut heard = Vec::new();
        let named = NAMED.iter().map(|&(number, name, wish)| (number, name.to_owned(), wish));
        let real_time = REAL_TIME.map(|number| (number, format!("real-time signal {number}"), Wish::Nothing));
        for (number, name, wish) in named.chain(real_time) {
            match signal(SignalKind::from_raw(number)) {
                Ok(signal) => heard.push((name, wish, signal)),
                Err(error) if wish != Wish::Nothing => return Err(error),
                // There is none of that number here.
                Err(_) => {}
            }
        }
        Ok(Self(heard))
    }

    pub async fn next(&mut self) -> (String, Wish) {
        let at = poll_fn(|context| {
            let came = self.0.iter_mut().position(|(_, _, signal)| signal.poll_recv(context).is_ready());
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let (name, wish, _) = &self.0[at];
        (name.clone(), *wish)
    }
}
