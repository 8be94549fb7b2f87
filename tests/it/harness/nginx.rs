//! A real nginx, in front of an edge or anywhere else.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::{eventually, free_address};

pub struct Nginx {
    process: Child,
    pub address: SocketAddr,
    /// Its files, for as long as it runs.
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Listens without TLS and passes everything on to an edge, over TLS, as `iqueue.test`. `more` are directives of the
    /// location.
    pub fn before(edge: SocketAddr, more: &str) -> Self {
        Self::serving(&format!(
            "location / {{ proxy_pass https://{edge}; proxy_http_version 1.1; proxy_set_header Host iqueue.test;\n\
             proxy_ssl_server_name on; proxy_ssl_name iqueue.test; {more} }}"
        ))
    }

    /// Listens without TLS. `server` are directives of the server.
    pub fn serving(server: &str) -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let at = folder.path().to_str().unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path {at}/{of};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\n\
             {temporary}access_log off;\nserver {{ listen {address};\n{server} }}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("nginx");
        command
            .args(["-p", at, "-c", file.to_str().unwrap(), "-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().expect("nginx is installed: .ci/deps test");
        eventually("nginx listens", || std::net::TcpStream::connect(address).is_ok());
        Self { process, address, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
