//! The demonstration's folder: CA and certificate, signing key, configuration, user and password.
//!
//! They are created at the first start and kept, so that a browser has to trust the CA only once.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::auth::keys;
use crate::clock::Clock;
use crate::config::runtime_dir::{CONTROL_SOCKET, MAX_SOCKET_PATH};
use crate::config::{self, UserStore};
use crate::sessions::key::random_base64url;
use crate::users::password::{self, Verified};
use crate::users::{self, DirectoryError, Email, Grants, NewUser, Password, UserName};

const USER: &str = "demo";

pub struct Folder(PathBuf);

/// The settings of the configuration that do not come from the folder.
pub struct Settings<'a> {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub memcached: Option<&'a str>,
    pub applications: &'a [(&'static str, SocketAddr)],
}

impl Folder {
    /// Creates the files that do not exist yet.
    pub fn prepare(path: &Path) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let folder = Self(path.to_owned());
        if !folder.ca().exists() || !folder.at("edge.pem").exists() {
            folder.make_certificates()?;
        }
        if !folder.at("jwt.key").exists() {
            folder.write("jwt.key", &keys::generate(config::Algorithm::HS256)?)?;
        }
        if !folder.at("credentials").exists() {
            let password = random_base64url::<12>().map_err(|_| "the system's random source failed".to_owned())?;
            folder.write("credentials", &format!("{USER}\n{password}\n"))?;
        }
        Ok(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn ca(&self) -> PathBuf {
        self.at("ca.pem")
    }

    pub fn credentials(&self) -> String {
        fs::read_to_string(self.at("credentials")).unwrap_or_default()
    }

    /// Writes a file that only its owner can read, atomically.
    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let (path, draft) = (self.at(name), self.at(&format!("{name}.new")));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&draft, &path));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    #[expect(clippy::disallowed_methods, reason = "rcgen wants the system's own time, and no test moves it here")]
    fn make_certificates(&self) -> Result<(), String> {
        let failed = |error: rcgen::Error| format!("cannot make a certificate: {error}");
        let ca_key = KeyPair::generate().map_err(failed)?;
        let mut ca = CertificateParams::new(Vec::new()).map_err(failed)?;
        ca.distinguished_name.push(DnType::CommonName, "sentry-edge demonstration CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key).map_err(failed)?;
        let issuer = Issuer::new(ca, ca_key);

        let hosts = ["sentry.localhost", "iqueue.localhost", "dextor.localhost"].map(str::to_owned);
        let edge_key = KeyPair::generate().map_err(failed)?;
        let mut edge = CertificateParams::new(hosts).map_err(failed)?;
        edge.distinguished_name.push(DnType::CommonName, "sentry-edge demonstration");
        // Browsers take no certificate that lasts longer than 398 days.
        let today = std::time::SystemTime::now();
        edge.not_before = (today - std::time::Duration::from_secs(24 * 3600)).into();
        edge.not_after = (today + std::time::Duration::from_secs(365 * 24 * 3600)).into();
        let certificate = edge.signed_by(&edge_key, &issuer).map_err(failed)?;

        self.write("ca.pem", &ca_certificate.pem())?;
        self.write("edge.key", &edge_key.serialize_pem())?;
        self.write("edge.pem", &format!("{}{}", certificate.pem(), ca_certificate.pem()))
    }

    /// Writes the effective configuration and returns its path.
    pub fn write_configuration(&self, settings: &Settings<'_>) -> Result<PathBuf, String> {
        // Where the path is too long for a socket the edge has its runtime directory elsewhere.
        let socket = self.at("run").join(CONTROL_SOCKET);
        let fits = socket.as_os_str().len() <= MAX_SOCKET_PATH;
        let runtime_dir = if fits { "  runtime_dir: run\n" } else { "" };
        let mut text = format!(
            "# Written by `sentry-edge demo` at every start.\n\
             server:\n  listeners:\n    - {{address: \"{}\", protocol: https}}\n  admin: {{address: \"{}\"}}\n  drain: 5s\n  \
             limits: {{connections: 1000}}\n{}\
             log: {{level: warn, access: {{path: access.log}}, audit: {{path: audit.log}}}}\n\
             tls:\n  certificates:\n    - {{certificate: edge.pem, key: edge.key}}\n\
             sentry:\n  host: sentry.localhost\n  \
             keys:\n    - {{id: demo, algorithm: HS256, secret: {{file: jwt.key}}}}\n  \
             login: {{title: \"Sign in to the demonstration\"}}\n",
            settings.listen, settings.admin, runtime_dir,
        );
        match settings.memcached {
            Some(server) => {
                writeln!(text, "sessions:\n  store: memcached\n  memcached: {{servers: [\"{server}\"]}}").ok()
            }
            None => writeln!(text, "sessions: {{store: memory}}").ok(),
        };
        writeln!(text, "users:\n  store: sqlite\n  sqlite: {{path: users.db}}\nservices:").ok();
        for (name, _) in settings.applications {
            writeln!(text, "  {name}: {{hosts: [{name}.localhost], idle_timeout: 30m, pool: {name}}}").ok();
        }
        writeln!(text, "pools:").ok();
        for (name, address) in settings.applications {
            writeln!(text, "  {name}: {{servers: [\"{address}\"]}}").ok();
        }
        self.write("edge.yaml", &text)?;
        Ok(self.at("edge.yaml"))
    }

    /// Registers the demonstration's user for all services, with the password of the credentials file.
    pub fn add_user(&self, services: &[&str]) -> Result<(), String> {
        let store = UserStore::Sqlite { path: self.at("users.db") };
        let directory = users::open_or_create(&store, Clock::default()).map_err(|error| error.in_full())?;
        let credentials = self.credentials();
        let (name, rest) = credentials.split_once('\n').unwrap_or_default();
        let name = UserName::parse(name).map_err(|error| format!("credentials: {error}"))?;
        let password = rest.lines().next().unwrap_or_default().to_owned();
        let password = Password::new(password).map_err(|error| format!("credentials: {error}"))?;
        let email = Email::parse("demo@localhost").ok();
        let grants = Grants::parse(services.iter().map(|s| (*s).to_owned()).collect(), vec!["admin".into()])
            .map_err(|error| error.to_string())?;
        let found = directory.sign_on.find(&name).map_err(|error| error.to_string())?;
        if found.is_some_and(|(_, hash)| matches!(password::verify(&password, &hash), Ok(Verified::Match))) {
            // The user is from an earlier start. Another hash of the same password would end the user's sessions.
            return Ok(());
        }
        let hash = password::hash(&password).map_err(|error| error.to_string())?;
        let new = NewUser { name: name.clone(), email, grants, disabled: false };
        match directory.registry.add(&new, &hash) {
            Ok(_) => Ok(()),
            // The password of the credentials file is the valid one.
            Err(DirectoryError::UserExists(_)) => {
                directory.registry.set_password_hash(&name, &hash).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.in_full()),
        }
    }
}
