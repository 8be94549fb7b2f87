//! An application in a process of its own, which can be killed, frozen and started again at the same address.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{eventually, free_address, process};

/// Answers everything with `hello`, over kept connections.
const SCRIPT: &str = r#"
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response_only(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"hello")

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *arguments):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

host, port = sys.argv[1].rsplit(":", 1)
Server((host, int(port)), Application).serve_forever()
"#;

pub struct Application {
    process: Child,
    pub address: SocketAddr,
}

impl Application {
    pub fn start() -> Self {
        let address = free_address();
        Self { process: start_at(address), address }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// After it was killed.
    pub fn restart(&mut self) {
        self.process = start_at(self.address);
    }

    /// It takes connections, as the kernel does that for it, and does not answer.
    pub fn freeze(&self) {
        process::signal(&self.process, "STOP");
    }

    pub fn thaw(&self) {
        process::signal(&self.process, "CONT");
    }
}

fn start_at(address: SocketAddr) -> Child {
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT, &address.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().unwrap();
    eventually("the application listens", || TcpStream::connect(address).is_ok());
    process
}

impl Drop for Application {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
