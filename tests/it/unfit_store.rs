//! A memcached that answers and is of no use: it wants a password, or does not know the commands. Said before anybody
//! tries to sign in.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::harness::{Response, Running, edge, eventually, eventually_or, free_address, memcached, origin};

/// A real memcached that answers those alone who know its password.
struct Locked {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Locked {
    fn start() -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let file = folder.path().join("passwords");
        std::fs::write(&file, "user:password\n").unwrap();
        let port = address.port().to_string();
        let child = Command::new("memcached")
            .args(["-u", "root", "-l", "127.0.0.1", "-p", &port, "-Y"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("memcached is installed: `make deps`");
        let locked = Self { child, address, _folder: folder };
        eventually("it listens", || TcpStream::connect(address).is_ok());
        locked
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// As memcached 1.4 answers: it has a version, and has never heard of meta commands. Lives as long as the test process.
fn ancient() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    let answer = if line == "version" { "VERSION 1.4.25\r\n" } else { "ERROR\r\n" };
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_store_that_cannot_be_used_is_said_by_check_and_readyz() {
    let (locked, origin) = (Locked::start(), origin("app"));
    for (address, said) in [(locked.address, "it wants a password"), (ancient(), "memcached 1.6.10 or later is needed")]
    {
        for policy in ["recent", "deny", "token_only"] {
            let sessions = format!(
                "{{store: memcached, memcached: {{servers: [\"{address}\"], timeout: 5s, sign_on_timeout: 5s}}, on_outage: {policy}}}"
            );
            let builder = edge().service("iqueue", &origin).sessions(&sessions);
            let (_folder, file) = builder.write();
            let mut check = Running::start(&["check", "-c", file.to_str().unwrap(), "--connect"]);
            assert_eq!(check.end().code(), Some(1), "{policy}: {}{}", check.stdout(), check.stderr());
            let has_told = || check.stderr().contains(&address.to_string()) && check.stderr().contains(said);
            eventually_or(has_told, || format!("{policy}: check says {said}: {}", check.stderr()));
            let edge = builder.start();
            let ready = || edge.admin("/readyz");
            // On a busy machine the first answer may be that there was none in time.
            let says = |ready: Response| ready.json()["session_store"].as_str().unwrap().contains(said);
            eventually_or(|| says(ready()), || format!("{policy}: {said}: {}", ready().body));
            assert_eq!(ready().status, 503, "{policy}: no policy is for a store that answers");
        }
    }
}

#[test]
fn a_store_that_can_be_used_is_left_as_it_was_found() {
    let (memcached, origin) = (memcached(), origin("app"));
    let builder = edge().service("iqueue", &origin).memcached(&memcached.address());
    let (_folder, file) = builder.write();
    let mut check = Running::start(&["check", "-c", file.to_str().unwrap(), "--connect"]);
    assert_eq!(check.end().code(), Some(0), "{}", check.stderr());
    assert_eq!(builder.start().admin("/readyz").status, 200);
    assert_eq!(memcached.stat("curr_items"), 0);
}
