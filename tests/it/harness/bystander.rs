//! Somebody who has nothing to do with an attack, and is to notice nothing of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Connection, eventually};

/// After which the edge may close a connection that has been served, where all places are taken.
const MAY_BE_CLOSED: Duration = Duration::from_millis(100);

/// Somebody who asks all the time, over a connection of their own, and has to be answered each time.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    pub fn of(edge: SocketAddr) -> Self {
        let mut connection = Connection::open(edge, "iqueue.test").unwrap();
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            let mut answered = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let mut answer = connection.get("iqueue.test", "/");
                // On a busy machine this thread may have rested for so long that its connection was an idle one, which
                // the edge may close for another.
                if answer.is_err() && answered.elapsed() > MAY_BE_CLOSED {
                    connection = Connection::open(edge, "iqueue.test").unwrap();
                    answer = connection.get("iqueue.test", "/");
                }
                assert_eq!(answer.unwrap().0, 200);
                answered = Instant::now();
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, served, thread: Some(thread) }
    }

    /// Served before, all the time, and still.
    pub fn was_served(mut self) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("the bystander is served", || {
            let failed = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            assert!(!failed, "the bystander was not served");
            self.served.load(Ordering::Relaxed) > before + 2
        });
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}
