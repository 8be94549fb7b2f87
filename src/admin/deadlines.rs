//! The time limits of a call, from the command that makes it to the work that it waits for. Each is longer than all that
//! happens below it together, so that what takes too long is reported by the part that knows what it was, and no caller
//! gives up before it has been answered.

use std::time::Duration;

pub use crate::users::directory_worker::OPERATION as DIRECTORY;

/// How long a command waits for a running edge.
pub const COMMAND: Duration = Duration::from_secs(85);
/// A call as a whole, over the admin listener or the control socket.
pub const CALL: Duration = Duration::from_secs(75);
/// The body of a call.
pub const BODY: Duration = Duration::from_secs(5);
/// The wait for the outcome of a reload: of the one in progress, and of its own.
pub const RELOAD: Duration = Duration::from_secs(65);
/// The files of one reload. One that takes longer fails, and the next may begin.
pub const RELOAD_FILES: Duration = Duration::from_secs(30);
/// A look through the session store, including the wait for another one.
pub const LIST: Duration = Duration::from_secs(40);
/// The session store's part of the end of sessions. The user directory has it by then, which is what counts.
pub const END: Duration = Duration::from_secs(45);
/// The writing of a response over the control socket.
pub const WRITE: Duration = Duration::from_secs(10);

const fn is_longer(outer: Duration, inner: &[Duration]) -> bool {
    let (mut sum, mut at) = (0, 0);
    while at < inner.len() {
        sum += inner[at].as_secs();
        at += 1;
    }
    outer.as_secs() > sum
}

const _: () = {
    assert!(COMMAND.as_secs() >= CALL.as_secs() + WRITE.as_secs());
    assert!(is_longer(CALL, &[BODY, RELOAD]));
    assert!(is_longer(RELOAD, &[RELOAD_FILES, RELOAD_FILES]));
    // The directory is read before the list, and after it for the names.
    assert!(is_longer(CALL, &[DIRECTORY, LIST, DIRECTORY]));
    assert!(is_longer(CALL, &[DIRECTORY, END]));
    assert!(is_longer(END, &[LIST]));
};
