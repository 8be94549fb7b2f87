//! The scheduling class of login threads: how they give way to the threads that serve requests.

use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

/// The niceness of login threads, as in nice(1).
const NICENESS: i32 = 10;

#[derive(Clone, Copy)]
pub enum SchedClass {
    /// SCHED_IDLE: runs only while no other thread wants the processor, and is preempted at once. A niceness alone does not
    /// do that: Linux lets the running thread continue to the next tick, 4 ms where it ticks 250 times a second, and a
    /// request would wait as long.
    Idle,
    /// SCHED_OTHER with a niceness of 10: about a tenth of a core that is never idle.
    Low,
}

impl SchedClass {
    /// Applies to the calling thread until it ends: Linux lets only root undo it.
    pub fn apply(self) {
        if matches!(self, Self::Idle) {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let thread = thread_priority::thread_native_id();
            // The call also sets the niceness, which means nothing for such a thread and may be refused. So its result is
            // ignored, and the policy is read back.
            thread_priority::set_thread_priority_and_policy(thread, ThreadPriority::Min, idle).ok();
            if thread_priority::thread_schedule_policy() != Ok(idle) {
                log::warn!("login: threads compete with requests for the processor: SCHED_IDLE was refused");
            }
        }
        lower_priority();
    }
}

fn lower_priority() {
    // Linux takes "this process" for the calling thread. A process that has a higher niceness already is left as it is.
    let lowered = rustix::process::getpriority_process(None).and_then(|now| match now < NICENESS {
        true => rustix::process::setpriority_process(None, NICENESS),
        false => Ok(()),
    });
    if let Err(error) = lowered {
        log::warn!("login: threads compete with requests for the processor: {error}");
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
    fn the_threads_give_way_to_those_that_serve_requests() {
        for (name, class, policy) in
            [("test-idle", SchedClass::Idle, SCHED_IDLE), ("test-low", SchedClass::Low, SCHED_OTHER)]
        {
            let started = std::thread::Builder::new().name(name.into()).spawn(move || {
                let before = stat(name, NICE).unwrap();
                class.apply();
                assert_eq!(stat(name, POLICY), Some(policy));
                (before, stat(name, NICE).unwrap())
            });
            let (before, after) = started.unwrap().join().unwrap();
            assert!(after == NICENESS.max(before) || (policy == SCHED_IDLE && after == NICENESS), "{name}: {after}");
            // The other threads keep their niceness.
            let main = std::fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id())).unwrap();
            assert_eq!(main.rsplit_once(") ").unwrap().1.split(' ').nth(NICE - 3), Some(before.to_string().as_str()));
        }
    }
}
