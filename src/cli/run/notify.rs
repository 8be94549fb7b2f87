//! Notifications to the service manager (`sd_notify`), on a thread of its own, so that a manager that hangs blocks
//! nothing.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

/// Messages that may wait. More are not sent: the manager does not read.
const QUEUE: usize = 16;

/// How long the manager is to wait for the next message before it kills a process that stops. The drain may take longer
/// than the manager waits by its own settings.
const EXTENSION: NotifyState<'static> = NotifyState::ExtendTimeoutUsec(20_000_000);

/// The interval between these messages.
pub const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub enum State {
    Ready,
    Reloading,
    Stopping,
    /// Still stopping.
    Draining,
    /// The process with this id is the service's main one from now on, and ready.
    ReadyAs(u32),
}

/// Without a service manager nothing is sent.
pub struct Notifier(Option<SyncSender<Vec<NotifyState<'static>>>>);

impl Notifier {
    pub fn start() -> Self {
        let (states, said) = sync_channel::<Vec<NotifyState<'static>>>(QUEUE);
        let thread = std::thread::Builder::new().name("notify".into()).spawn(move || {
            for states in said {
                // Without a service manager there is none to notify, which is no fault.
                sd_notify::notify(&states).ok();
            }
        });
        Self(thread.ok().map(|_| states))
    }

    pub fn send(&self, state: State) {
        let states = match state {
            State::Ready => vec![NotifyState::Ready],
            State::ReadyAs(pid) => vec![NotifyState::MainPid(pid), NotifyState::Ready],
            State::Stopping => vec![NotifyState::Stopping, EXTENSION],
            State::Draining => vec![EXTENSION],
            // systemd wants to know when it began.
            State::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => vec![NotifyState::Reloading, now],
                Err(_) => return,
            },
        };
        if let Some(said) = &self.0 {
            said.try_send(states).ok();
        }
    }
}
