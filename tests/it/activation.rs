//! Socket activation: a service manager binds the sockets and keeps them while the edge is restarted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::service_manager::ServiceManager;
use crate::harness::{Connection, Stop, client, edge, eventually, origin, setting, write_private};
use crate::tidy::read;

/// Clients, each of which opens a connection for each request.
const CLIENTS: usize = 4;

/// A configuration whose listeners have the addresses of the manager's sockets.
fn write_listeners(file: &std::path::Path, yaml: &str, listeners: &str, admin: &str) {
    let at = yaml.find("server: {listeners: [").unwrap();
    let end = yaml.find("drain: 5s").unwrap();
    let server = format!("server: {{listeners: [{listeners}], admin: {{address: \"{admin}\"}}, ");
    let yaml = format!("{}{server}{}", &yaml[..at], &yaml[end..]).replace("level: warn", "level: info");
    write_private(file, yaml);
}

#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    refused: AtomicUsize,
    failed: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    fn send(&self, edge: SocketAddr) {
        while !self.over.load(Ordering::Relaxed) {
            let count = match Connection::open(edge, "iqueue.test") {
                Ok(mut connection) => match connection.get("iqueue.test", "/") {
                    Ok((200, _)) => &self.answered,
                    _ => &self.failed,
                },
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => &self.refused,
                Err(_) => &self.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_restart_refuses_no_connection() {
    let app = origin("app");
    let (_folder, file) = edge().service_with("iqueue", &app, "access: public").write();
    let yaml = std::fs::read_to_string(&file).unwrap();
    let any = "127.0.0.1:0";
    let mut manager = ServiceManager::bind(&[any, any], &file, &[]);
    let (address, admin) = (manager.addresses[0].clone(), manager.addresses[1].clone());
    write_listeners(&file, &yaml, &format!("{{address: \"{address}\"}}"), &admin);
    let (address, admin): (SocketAddr, SocketAddr) = (address.parse().unwrap(), admin.parse().unwrap());
    let restarts = setting("RESTARTS", 3);
    let load = Load::default();
    std::thread::scope(|scope| {
        let stop = Stop(&load.over);
        // They wait from before the first start on.
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| load.send(address))).collect();
        manager.order("start");
        for number in 0..=restarts {
            let before = load.answered.load(Ordering::Relaxed);
            eventually("requests are answered", || load.answered.load(Ordering::Relaxed) > before + 20);
            assert_eq!(client(admin).get("http://admin.test/readyz").status, 200);
            if number < restarts {
                manager.order("restart");
                eventually("it is restarted", || manager.count("started") == number + 2);
            }
        }
        drop(stop);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let [answered, refused, failed] = [load.answered, load.refused, load.failed].map(AtomicUsize::into_inner);
    println!("{restarts} restarts: {refused} refused and {failed} failed of {} requests", answered + refused + failed);
    assert_eq!(refused, 0, "{}", manager.log());
    assert_eq!(manager.count("ended 0"), restarts, "each drained: {}", manager.log());
}

#[test]
fn sockets_belong_to_the_listeners_of_their_addresses() {
    let app = origin("app");
    for (names, pid, is_activated) in [(None, "", true), (Some("edge:edge:edge"), "", true), (None, "1", false)] {
        let (_folder, file) = edge().service_with("iqueue", &app, "access: public").write();
        let yaml = std::fs::read_to_string(&file).unwrap();
        let mut variables = vec![("PID", pid)];
        variables.extend(names.map(|names| ("NAMES", names)));
        let any = "127.0.0.1:0";
        let mut manager = ServiceManager::bind(&[any, any, any], &file, &variables);
        let [admin, http, https] = [0, 1, 2].map(|at| manager.addresses[at].clone());
        let listeners =
            format!("{{address: \"{https}\"}}, {{address: \"{http}\", protocol: http}}, {{address: \"127.0.0.1:0\"}}");
        write_listeners(&file, &yaml, &listeners, &admin);
        manager.order("start");
        if !is_activated {
            // The sockets are another process's, and so their ports are taken.
            manager.order("wait");
            eventually("it ends", || manager.count("ended 1") == 1);
            eventually("it says why", || manager.log().contains("cannot listen on"));
            continue;
        }
        eventually("it serves", || manager.log().contains("admin on http://"));
        let log = manager.log();
        for address in [&https, &http, &admin] {
            assert!(log.contains(&format!("listener {address}: the service manager has bound it")), "{log}");
        }
        assert!(log.contains("listener 127.0.0.1:0: no socket was passed for it"), "{log}");
        let [https, http, admin] = [https, http, admin].map(|address| address.parse::<SocketAddr>().unwrap());
        let mut connection = Connection::open(https, "iqueue.test").unwrap();
        assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200);
        assert_eq!(client(http).get(&format!("http://iqueue.test:{}/", http.port())).status, 308);
        assert_eq!(client(admin).get("http://admin.test/readyz").status, 200);
    }
}

#[test]
fn sockets_that_cannot_be_used_stop_the_start_and_say_which() {
    let app = origin("app");
    let any = "127.0.0.1:0";
    let unix = std::env::temp_dir().join(format!("activation-{}.sock", std::process::id()));
    let unix = unix.to_str().unwrap();
    for (more, names, expected) in [
        (any, None, "the service manager listens on ADDRESS, which no listener has"),
        ("udp:127.0.0.1:0", Some("a:b:dns"), "the service manager passes dns, which is no TCP socket that listens"),
        (unix, Some("a:b:local"), "the service manager passes local, which is no TCP socket that listens"),
        (any, Some("a:b"), "invalid LISTEN_FDNAMES"),
    ] {
        let (_folder, file) = edge().service_with("iqueue", &app, "access: public").write();
        let yaml = std::fs::read_to_string(&file).unwrap();
        let variables: Vec<_> = names.into_iter().map(|names| ("NAMES", names)).collect();
        let mut manager = ServiceManager::bind(&[any, any, more], &file, &variables);
        let (https, admin) = (manager.addresses[0].clone(), manager.addresses[1].clone());
        write_listeners(&file, &yaml, &format!("{{address: \"{https}\"}}"), &admin);
        manager.order("start");
        manager.order("wait");
        eventually("it ends", || manager.count("ended 1") == 1);
        let expected = expected.replace("ADDRESS", &manager.addresses[2]);
        // Its two outputs are read one beside the other.
        eventually(&expected, || manager.log().contains(&expected));
    }
    std::fs::remove_file(unix).unwrap();
}

/// The addresses of the shipped socket unit are those of the sample configuration.
#[test]
fn the_socket_unit_has_the_listeners_of_the_sample() {
    let unit = read("systemd/sentry-edge.socket");
    let mut passed: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let sample: serde_yaml::Value = serde_yaml::from_str(&read("config/edge.yaml")).unwrap();
    let server = &sample["server"];
    let listeners = server["listeners"].as_sequence().unwrap().iter();
    let mut configured: Vec<&str> = listeners.map(|listener| listener["address"].as_str().unwrap()).collect();
    configured.push(server["admin"]["address"].as_str().unwrap());
    passed.sort_unstable();
    configured.sort_unstable();
    assert_eq!(passed, configured);
}

#[test]
fn an_upgrade_goes_on_with_the_sockets_of_the_service_manager() {
    let app = origin("app");
    let (_folder, file) = edge().service_with("iqueue", &app, "access: public").write();
    let yaml = std::fs::read_to_string(&file).unwrap();
    let any = "127.0.0.1:0";
    let mut manager = ServiceManager::bind(&[any, any, any], &file, &[]);
    let [https, http, admin] = [0, 1, 2].map(|at| manager.addresses[at].clone());
    let listeners = format!("{{address: \"{https}\"}}, {{address: \"{http}\", protocol: http}}");
    write_listeners(&file, &yaml, &listeners, &admin);
    manager.order("start");
    eventually("it serves", || manager.log().contains("admin on http://"));
    let signal = |pid: u32, name: &str| {
        std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    };
    signal(manager.pid(), "USR2");
    eventually("another process serves", || {
        manager.log().contains("this process serves in the place of the one before")
    });
    let log = manager.log();
    let pid = log.split_once("upgrade: started process ").unwrap().1.split(':').next().unwrap().parse().unwrap();
    manager.order("wait");
    eventually("the first one has drained", || manager.count("ended 0") == 1);
    let mut connection = Connection::open(https.parse().unwrap(), "iqueue.test").unwrap();
    assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200);
    // The service manager would keep a socket that no process accepts from.
    write_listeners(&file, &yaml, &format!("{{address: \"{https}\"}}"), &admin);
    signal(pid, "USR2");
    eventually("that is a fault", || {
        manager.log().contains(&format!("the service manager listens on {http}, which no"))
    });
    eventually("the process before it serves on", || manager.log().contains("upgrade failed, this process serves on"));
    assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200);
    signal(pid, "TERM");
    eventually("it drains", || manager.log().matches("stopped; 0 requests were cut off").count() == 2);
}
