//! Tests of the logs on real files, pipes and devices.

use std::io::{Read, Write};
use std::path::Path;

use super::*;

fn logs() -> Logs {
    Logs::new(LogMetrics::new(&NAMES).unwrap())
}

fn file(path: &Path) -> LogTarget {
    LogTarget::File(path.to_owned())
}

/// Waits for what another thread does in its own time.
#[expect(clippy::disallowed_methods, reason = "a test's own thread")]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn what_was_queued_is_written_before_the_handle_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let logs = logs();
    let log = logs.open(&file(&path), ACCESS, GATHER).unwrap();
    for n in 0..1000 {
        log.write(&n);
    }
    drop(log);
    let text = text(&path);
    assert_eq!(text.lines().count() as u64 + logs.metrics().dropped(ACCESS).get(), 1000);
    assert!(text.starts_with("0\n1\n"));
}

#[test]
fn a_target_that_cannot_be_opened_is_named() {
    let error = logs().open(&file(Path::new("/nonexistent/access.log")), ACCESS, GATHER).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/access.log"), "{error}");
}

#[test]
fn a_full_disk_loses_lines_and_counts_them() {
    let logs = logs();
    let log = logs.open(&file(Path::new("/dev/full")), AUDIT, Duration::ZERO).unwrap();
    log.write(&"first");
    eventually("the error was counted", || logs.metrics().errors(AUDIT).get() == 1);
    assert_eq!(logs.metrics().dropped(AUDIT).get(), 1);
    log.write(&"second");
    eventually("the next was counted too", || logs.metrics().dropped(AUDIT).get() == 2);
}

#[test]
fn a_named_pipe_without_a_reader_holds_up_nothing_and_its_reader_gets_whole_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let logs = logs();
    let log = logs.open(&file(&path), ACCESS, Duration::ZERO).unwrap();
    // More than a pipe holds, so that the writer waits in the middle of it.
    let entry = "x".repeat(1000);
    let lines = 40 * 1024 * 1024 / 1000;
    for _ in 0..lines {
        log.write(&entry);
    }
    assert!(logs.metrics().dropped(ACCESS).get() > 0, "there is an end to what waits");
    let mut reader = std::fs::File::open(&path).unwrap();
    let gathered = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = reader.read(&mut chunk).unwrap();
            all.extend_from_slice(&chunk[..read]);
            if all.ends_with(b"\"last\"\n") {
                return String::from_utf8(all).unwrap();
            }
        }
    });
    eventually("there is room again", || {
        let before = logs.metrics().dropped(ACCESS).get();
        log.write(&"last");
        logs.metrics().dropped(ACCESS).get() == before
    });
    let all = gathered.join().unwrap();
    let whole = |line: &str| line == format!("\"{entry}\"") || line == "\"last\"";
    assert!(all.lines().all(whole), "a line was torn");
}

#[test]
fn the_end_does_not_wait_for_a_pipe_that_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let logs = logs();
    let log = logs.open(&file(&path), AUDIT, Duration::ZERO).unwrap();
    for _ in 0..1000 {
        log.write(&"x".repeat(1000));
    }
    logs.close();
    drop(log);
    assert!(logs.metrics().dropped(AUDIT).get() > 0);
}

#[test]
fn logs_opened_again_are_whole_in_either_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let logs = logs();
    let log = logs.open(&file(&path), ACCESS, Duration::from_millis(1)).unwrap();
    for n in 0..5000 {
        log.write(&n);
        if n == 2500 {
            std::fs::rename(&path, &moved).unwrap();
            logs.reopen();
        }
    }
    eventually("there is a new file", || path.exists());
    log.write(&5000);
    drop(log);
    let both: Vec<u32> =
        [text(&moved), text(&path)].concat().lines().map(|line| line.parse().expect("a whole line")).collect();
    assert!(both.iter().copied().eq(0..=5000), "in order, none lost and none twice");
    assert!(text(&path).ends_with("5000\n"));
}

#[test]
fn a_file_that_cannot_be_opened_again_goes_on_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("logs");
    std::fs::create_dir(&folder).unwrap();
    let (path, moved) = (folder.join("audit.log"), directory.path().join("moved"));
    let logs = logs();
    let log = logs.open(&file(&path), AUDIT, Duration::ZERO).unwrap();
    std::fs::rename(&folder, &moved).unwrap();
    logs.reopen();
    eventually("it was counted", || logs.metrics().errors(AUDIT).get() == 1);
    log.write(&"still here");
    eventually("the old file has it", || text(&moved.join("audit.log")) == "\"still here\"\n");
    assert_eq!(logs.metrics().dropped(AUDIT).get(), 0);
}

#[test]
fn a_line_that_a_former_process_could_not_end_is_ended_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    for (before, expected) in [("{\"ev", "{\"ev\n1\n"), ("0\n", "0\n1\n"), ("", "1\n")] {
        std::fs::write(&path, before).unwrap();
        let log = logs().open(&file(&path), AUDIT, Duration::ZERO).unwrap();
        log.write(&1);
        drop(log);
        assert_eq!(text(&path), expected);
    }
}

#[test]
fn what_is_lost_of_one_log_is_said_in_the_log_itself_and_of_the_process_log_in_another() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.log");
    let logs = logs();
    let _audit = logs.open(&file(&audit), AUDIT, Duration::ZERO).unwrap();
    let full = Target::File("/dev/full".into());
    let process = logs.start(full, PROCESS, QueueLimits { bytes: 1 << 20, gather: Duration::ZERO }).unwrap();
    process.write_text("one\n");
    eventually("it was said", || text(&audit).lines().count() == 1);
    process.write_text("two\n");
    eventually("it was counted", || logs.metrics().dropped(PROCESS).get() == 2);
    let said: serde_json::Value = serde_json::from_str(&text(&audit)).expect("once");
    assert_eq!((&said["event"], &said["log"]), (&"log_failed".into(), &"process-log".into()));
    assert!(said["reason"].as_str().unwrap().contains("No space left"), "{said}");
}

#[test]
fn logs_that_share_a_pipe_do_not_tear_each_others_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let logs = logs();
    let access = logs.open(&file(&path), ACCESS, Duration::from_millis(1)).unwrap();
    let audit = logs.open(&file(&path), AUDIT, Duration::ZERO).unwrap();
    let mut reader = std::fs::File::open(&path).unwrap();
    let (long, short) = ("a".repeat(9000), "b".repeat(700));
    let writers = std::thread::spawn(move || {
        for _ in 0..500 {
            access.write(&long);
            audit.write(&short);
        }
    });
    let mut all = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    while all.len() < 500 * (9003 + 703) {
        let read = reader.read(&mut chunk).unwrap();
        all.extend_from_slice(&chunk[..read]);
    }
    writers.join().unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(all.lines().all(|line| line.len() == 9002 || line.len() == 702), "a line was torn");
    assert_eq!(all.lines().count(), 1000);
}

#[test]
fn a_descriptor_that_another_process_made_non_blocking_loses_nothing() {
    let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
    let lines = "x".repeat(99) + "\n";
    let lines = lines.repeat(20_000);
    let length = lines.len();
    let written = std::thread::spawn(move || sink::write_all(&mut file, lines.as_bytes()).0);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!((all.len(), written.join().unwrap()), (length, length));
}

#[test]
fn a_torn_line_is_completed_when_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let mut sink = sink::Sink::open(Target::File(path.clone()), WriteLocks::default()).unwrap();
    sink.write(b"one\n").unwrap();
    // As a full disk leaves it: three bytes of the second line are there.
    assert_eq!(sink.tear(b"second\nthird\n", 3), 1);
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"sec").unwrap();
    sink.write(b"fourth\n").unwrap();
    assert_eq!(text(&path), "one\nsecond\nfourth\n");

    assert_eq!(sink.tear(b"fifth\n", 2), 0);
    std::fs::rename(&path, directory.path().join("moved")).unwrap();
    sink.reopen().unwrap();
    sink.write(b"sixth\n").unwrap();
    assert_eq!(text(&path), "fifth\nsixth\n", "in the new file it stands whole");
}
