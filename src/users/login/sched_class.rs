//! Where a login thread stands among all that want the processor.

use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

/// How far login threads step back behind those that serve requests: nice(1).
const NICENESS: i32 = 10;

#[derive(Clone, Copy)]
pub enum Rank {
    /// Runs while nobody else wants to, and makes way at once. nice(1) alone does not do that: Linux lets whoever runs
    /// go on to the next tick, 4 ms where it ticks 250 times a second, and a request waits so long.
    LeftOver,
    /// Has a tenth of a core that is never idle.
    SmallShare,
}

impl Rank {
    /// For the thread that calls it, to its end: Linux lets nobody but root take this back.
    pub fn take(self) {
        if matches!(self, Self::LeftOver) {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let thread = thread_priority::thread_native_id();
            // It also sets the niceness, which says nothing of such a thread and may be refused: what counts is asked.
            thread_priority::set_thread_priority_and_policy(thread, ThreadPriority::Min, idle).ok();
            if thread_priority::thread_schedule_policy() != Ok(idle) {
                log::warn!("logins compete with requests for the processor: they cannot be left what is over");
            }
        }
        step_back();
    }
}

fn step_back() {
    // Linux takes "this process" for the calling thread. A process that steps back further itself is left as it is.
    let stepped = rustix::process::getpriority_process(None).and_then(|now| match now < NICENESS {
        true => rustix::process::setpriority_process(None, NICENESS),
        false => Ok(()),
    });
    if let Err(error) = stepped {
        log::warn!("logins compete with requests for the processor: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of /proc/self/task/*/stat, counted as in proc_pid_stat(5), of the thread with this name.
    fn stat(thread: &str, field: usize) -> Option<i32> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let one = stats.into_iter().find(|stat| stat.contains(&format!("({thread})")))?;
        // The third field is the first one after the name.
        one.rsplit_once(") ")?.1.split(' ').nth(field - 3)?.parse().ok()
    }

    const NICE: usize = 19;
    const POLICY: usize = 41;
    const SCHED_OTHER: i32 = 0;
    const SCHED_IDLE: i32 = 5;

    #[test]
    fn the_threads_step_back_behind_those_that_serve_requests() {
        for (name, rank, policy) in
            [("left-over", Rank::LeftOver, SCHED_IDLE), ("small-share", Rank::SmallShare, SCHED_OTHER)]
        {
            let ranked = std::thread::Builder::new().name(name.into()).spawn(move || {
                let before = stat(name, NICE).unwrap();
                rank.take();
                assert_eq!(stat(name, POLICY), Some(policy));
                (before, stat(name, NICE).unwrap())
            });
            let (before, after) = ranked.unwrap().join().unwrap();
            assert!(after == NICENESS.max(before) || (policy == SCHED_IDLE && after == NICENESS), "{name}: {after}");
            // Nobody else was asked to.
            let main = std::fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id())).unwrap();
            assert_eq!(main.rsplit_once(") ").unwrap().1.split(' ').nth(NICE - 3), Some(before.to_string().as_str()));
        }
    }
}
