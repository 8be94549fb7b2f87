//! The composition root: builds every part from a configuration, binds the sockets, runs, reloads and drains.
//!
//! One runtime carries listeners, proxying, the admin listener and the store's connections. Pingora's own `Server`
//! is not used: it would give each service a runtime of its own and sleep through a fixed grace period at the end.

mod cert_watcher;
mod check;
mod control_socket;
mod hint_file;
mod layout_history;
mod maintenance_watcher;
mod memory;
mod needs;
mod open;
mod options;
mod reload;
mod shutdown;
mod start_error;
mod stores;
mod stream_watcher;
pub mod upgrade;
mod workers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use pingora_core::apps::HttpServerOptions;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::admin::api::{AdminTokens, Api, ApiParts};
use crate::admin::reload::ReloadRequests;
use crate::admin::status::StatusBoard;
use crate::blocking::BlockingThreads;
use crate::buffers::Buffers;
use crate::clock::Clock;
use crate::config::{self, Config, Faults};
use crate::drain::Drain;
use crate::listener::connection_slots::{ConnectionSlots, IdleGrace};
use crate::listener::inherited::InheritedSockets;
use crate::listener::{BoundListeners, ClientLimits, ListenerContext, ListenerKind, TlsListener, bind_all};
use crate::log_writer::{self, Logs};
use crate::maintenance::MaintenanceSwitches;
use crate::metrics::{LogMetrics, Metrics};
use crate::proxy::{Cancellable, FastPath, Gateway};
use crate::snapshot::{LoadedFiles, Ports, SharedState, Snapshot};
use crate::tls::{self, Certificates};
use crate::upstream::resolver::Resolver;
use crate::users::directory_worker::DirectoryWorker;
use crate::{admin, listener, upstream};
use control_socket::ControlSocket;
use hint_file::HintFile;
use upgrade::UpgradeSource;

pub use check::check;
pub use options::{FastPathMode, Lookup, Options, ProcessContext};
pub use reload::{Reload, ReloadedFiles};
pub use start_error::StartError;
pub use stores::session_store;

/// Idle connections to applications, for each worker.
const MOST_IDLE: usize = 512;

/// A running edge. Dropping it stops everything at once.
pub struct Edge {
    file: PathBuf,
    /// The configuration that this process was started with; a reload replaces only what can change in place.
    started_with: Config,
    config: Arc<ArcSwap<Config>>,
    shared: SharedState,
    store: stores::Store,
    hint_file: Arc<HintFile>,
    access: Arc<AccessLog>,
    logs: Logs,
    snapshot: Arc<ArcSwap<Snapshot>>,
    tls: tls::TlsState,
    drain: Arc<Drain>,
    /// Becomes true when the listeners close.
    closing: watch::Sender<bool>,
    /// The admin listener reports a drain to its end, and closes only when another process has it.
    admin_closing: watch::Sender<bool>,
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    ports: Ports,
    admin: SocketAddr,
    status: Arc<StatusBoard>,
    /// The tokens of the admin API.
    tokens: Arc<ArcSwapOption<AdminTokens>>,
    /// False where there was neither a token nor a control socket at the start.
    has_api: bool,
    control_socket: Option<PathBuf>,
    upgrade: UpgradeSource,
    /// `None` once it has been shut down.
    runtime: Option<Runtime>,
}

impl Edge {
    /// Starts an edge from a configuration file.
    pub fn start(file: &Path, clock: Clock) -> Result<Self, StartError> {
        Self::start_with(file, config::read(file).map_err(StartError::Config)?, clock, Options::default())
    }

    /// As above, from what [`config::read`] has made of the file.
    pub fn start_with(file: &Path, read: (Config, Faults), clock: Clock, options: Options) -> Result<Self, StartError> {
        let metrics = LogMetrics::new(&log_writer::NAMES).map_err(StartError::Metrics)?;
        let (logs, sockets) = (Logs::new(metrics), InheritedSockets::default());
        Self::start_in(ProcessContext { logs, sockets, taken_over: None }, file, read, clock, options)
    }

    /// As above, in a process that has a log already, and may take over from another one.
    pub fn start_in(
        ProcessContext { logs, mut sockets, taken_over }: ProcessContext,
        file: &Path,
        (config, mut faults): (Config, Faults),
        clock: Clock,
        options: Options,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::with_logs(env!("CARGO_PKG_VERSION"), logs.metrics());
        let metrics = metrics.map(Arc::new).map_err(StartError::Metrics)?;
        let names = Resolver::new(options.lookup.clone(), Some(metrics.traffic.names.clone()));
        let threads = BlockingThreads::new().map(Arc::new).map_err(StartError::Runtime)?;
        let loaded = LoadedFiles::read(&config, &clock, &Certificates::default(), &names, &threads, &mut faults);
        let tokens = AdminTokens::read(&config.server.admin, &mut faults);
        let (true, Some(LoadedFiles { tls, files })) = (faults.is_empty(), loaded) else {
            return Err(StartError::Config(faults));
        };
        check::warn(&faults.warnings());
        log::debug!("start: configuration read file={} services={}", file.display(), config.services.len());
        metrics.operation.started(clock.now().seconds());
        let runtime = workers::runtime(&config, metrics.traffic.buffer_bytes.clone()).map_err(StartError::Runtime)?;
        log::debug!("start: runtime started threads={}", workers::threads(&config));
        let bound = bind_all(&config, &runtime, &mut sockets)?;
        sockets.check_claimed().map_err(StartError::Sockets)?;
        let takes_over = taken_over.is_some();
        let control = open::control_socket(&config, file, &options, taken_over, &metrics)?;
        log::debug!("start: sockets bound https={} http={}", bound.https.len(), bound.http.len());
        let (access, audit) = open::logs(&config, &logs, &metrics)?;
        let (store, hint_file) = open::store(&config, file, &clock, &metrics, &runtime)?;
        if takes_over {
            open::check_store(&config, &store, &runtime)?;
        }
        let shared = open::shared_state(&config, &store, clock, metrics, audit, (names, threads))?;
        log::debug!("start: user directory opened, login workers started");
        tls.certificates.publish(&shared.metrics);
        let tls = tls::TlsState::new(tls, config.tls.tickets.rotation, &shared.clock).map_err(StartError::Tls)?;
        let snapshot = Snapshot::build(&config, files, &shared, &bound.ports());
        log::debug!("start: certificates loaded, snapshot built");
        shared.metrics.operation.config_loaded(&faults.hash, None);
        let status = StatusBoard::new(file, &faults.hash, shared.clock.now(), open::listener_statuses(&bound));
        let current = Arc::new(ArcSwap::from_pointee(config.clone()));
        let place = control.as_ref().map_or_else(Weak::new, ControlSocket::share);
        let results = shared.metrics.operation.upgrades.clone();
        let mut edge = Self {
            upgrade: UpgradeSource::new(&current, &bound, place, results),
            file: file.to_owned(),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            tls,
            access,
            logs,
            drain: Arc::new(Drain::default()),
            closing: watch::channel(false).0,
            admin_closing: watch::channel(false).0,
            https: bound.https.iter().map(|(bound, _)| bound.address).collect(),
            http: bound.http.iter().map(|bound| bound.address).collect(),
            ports: bound.ports(),
            admin: bound.admin.address,
            status: Arc::new(status),
            has_api: tokens.is_some() || control.is_some(),
            tokens: Arc::new(ArcSwapOption::from_pointee(tokens)),
            control_socket: control.as_ref().map(|socket| socket.path().to_owned()),
            runtime: Some(runtime),
            shared,
            store,
            hint_file,
            started_with: config,
            config: current,
        };
        let api = edge.has_api.then(|| edge.api(options.reloads.clone())).transpose()?;
        edge.serve(bound, control, api, options).map(|()| edge)
    }

    /// Begins to accept on every socket.
    fn serve(
        &mut self,
        bound: BoundListeners,
        control: Option<ControlSocket>,
        api: Option<Api>,
        options: Options,
    ) -> Result<(), StartError> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let config = self.config.load();
        let limits = config.server.limits;
        let slots = Arc::new(ConnectionSlots::new(limits.connections, IdleGrace::CLIENTS));
        let proxy = Arc::new(self.proxy(options));
        let held = self.shared.metrics.traffic.buffer_bytes.clone();
        let buffers = Buffers::new(held, limits.buffer_bytes, limits.buffer_bytes_per_address);
        let (quota, limit_logged_at) = (Arc::default(), Arc::default());
        let clients = ClientLimits { snapshot: Arc::clone(&self.snapshot), quota, limit_logged_at, buffers };
        let service = |name: &'static str, public_port: Option<u16>| ListenerContext {
            name,
            public_port,
            slots: Arc::clone(&slots),
            metrics: Arc::clone(&self.shared.metrics),
            handshake: config.server.timeouts.tls_handshake,
            kind: ListenerKind::Clients(clients.clone()),
            drain: Arc::clone(&self.drain),
            closing: self.closing.subscribe(),
        };
        for (socket, http2) in bound.https {
            let secured = TlsListener { http2, live: self.tls.clone() };
            let service = service("https", socket.public_port);
            runtime.spawn(listener::serve(socket, service, Some(secured), Arc::clone(&proxy)));
        }
        for socket in bound.http {
            let service = service("http", socket.public_port);
            runtime.spawn(listener::serve(socket, service, None, Arc::clone(&proxy)));
        }
        let admin = Arc::new(admin::Admin {
            metrics: Arc::clone(&self.shared.metrics),
            store: Arc::clone(&self.shared.store),
            logins: Arc::clone(&self.shared.logins),
            users: Arc::clone(&self.shared.users),
            drain: Arc::clone(&self.drain),
            snapshot: Arc::clone(&self.snapshot),
            api,
        });
        // The admin listener has connections of its own to spare: it must answer when clients have taken all.
        let mut service = service("admin", None);
        service.slots = Arc::new(ConnectionSlots::new(admin::MAX_CONNECTIONS, IdleGrace::NONE));
        service.kind = ListenerKind::Admin(Arc::default());
        service.closing = self.admin_closing.subscribe();
        if let Some(socket) = control {
            // It closes with the clients' listeners, when the next edge may start, whose socket is at the same place.
            runtime.spawn(socket.serve(Arc::clone(&admin), self.closing.subscribe()));
        }
        runtime.spawn(listener::serve(bound.admin, service, None, admin));
        self.spawn_watchers(runtime);
        Ok(())
    }

    /// Starts what runs beside the listeners for as long as the process does.
    fn spawn_watchers(&self, runtime: &Runtime) {
        let watcher = cert_watcher::CertWatcher {
            file: self.file.clone(),
            config: Arc::clone(&self.config),
            tls: self.tls.clone(),
            metrics: Arc::clone(&self.shared.metrics),
            clock: self.shared.clock.clone(),
        };
        runtime.spawn(watcher.watch());
        runtime.spawn(self.shared.names.clone().run());
        let (switches, threads) = (Arc::clone(&self.shared.maintenance), Arc::clone(&self.shared.blocking));
        runtime.spawn(maintenance_watcher::watch(Arc::clone(&self.config), switches, threads));
        let snapshot = Arc::clone(&self.snapshot);
        let pools = move || snapshot.load().pools.clone();
        runtime.spawn(upstream::health_checks::run(pools, Arc::clone(&self.shared.metrics)));
        runtime.spawn(upstream::probe::run(Arc::clone(&self.shared.servers)));
        runtime.spawn(stream_watcher::watch(Arc::clone(&self.snapshot), self.shared.clock.clone()));
    }

    fn api(&self, reloads: Option<ReloadRequests>) -> Result<Api, StartError> {
        // This connection to the directory is the API's own, so that no login waits for a listing.
        let config = self.config.load();
        let registry = stores::open_registry(&config, &self.shared.clock)?;
        let parts = ApiParts {
            tokens: Arc::clone(&self.tokens),
            reloads,
            status: Arc::clone(&self.status),
            snapshot: Arc::clone(&self.snapshot),
            directory: DirectoryWorker::start(registry).map_err(StartError::Runtime)?,
        };
        Ok(Api::new(parts, &config, &self.shared))
    }

    fn proxy(&self, options: Options) -> Cancellable<HttpProxy<Gateway>> {
        let config = self.config.load();
        let threads = workers::threads(&config);
        let conf = Arc::new(ServerConf {
            threads,
            upstream_keepalive_pool_size: MOST_IDLE,
            // Each pool's own number of retries is held by `proxy`; this is the most that one may have.
            max_retries: 1 + config::MAX_RETRIES,
            ..ServerConf::default()
        });
        let gateway = Gateway {
            snapshot: Arc::clone(&self.snapshot),
            clock: self.shared.clock.clone(),
            metrics: Arc::clone(&self.shared.metrics),
            access: Arc::clone(&self.access),
            audit: Arc::clone(&self.shared.audit),
            drain: Arc::clone(&self.drain),
            challenges: Arc::default(),
            unknown_clients: Arc::default(),
            compressors: Arc::default(),
        };
        let connector = ConnectorOptions::from_server_conf(&conf);
        let fast_path = FastPath::new(gateway.clone(), connector, MOST_IDLE * threads, options.fast_path);
        let mut proxy = http_proxy(&conf, gateway);
        let mut options = HttpServerOptions::default();
        // Refused by `hygiene` like every other method that we do not take, with our reply.
        options.allow_connect_method_proxying = true;
        proxy.server_options = Some(options);
        Cancellable::new(proxy, fast_path)
    }

    pub fn https_addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Returns the path of the control socket, if there is one.
    pub fn control_socket(&self) -> Option<&Path> {
        self.control_socket.as_deref()
    }

    /// Returns what another process takes over from this edge by.
    pub fn upgrade_source(&self) -> &UpgradeSource {
        &self.upgrade
    }

    pub fn status(&self) -> &StatusBoard {
        &self.status
    }

    /// Returns the names of the pools in use, each with the number of its servers.
    pub fn pools(&self) -> Vec<(String, usize)> {
        self.config.load().pools.iter().map(|pool| (pool.name.clone(), pool.servers.len())).collect()
    }

    pub fn requests_in_flight(&self) -> usize {
        self.drain.in_flight()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub fn maintenance(&self) -> &Arc<MaintenanceSwitches> {
        &self.shared.maintenance
    }

    /// Returns how long a drain may take, by the current configuration.
    pub fn drain_time(&self) -> Duration {
        self.config.load().server.drain.total()
    }

    /// Runs a future on the edge's own runtime, from a thread that is not one of its workers.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runtime.as_ref().map(|runtime| runtime.block_on(future))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.drain.cut();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
