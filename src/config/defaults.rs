//! Every default of the configuration, by the key that it belongs to.
//!
//! `check` takes a value from here where the file has none. `docs/reference/configuration.md` and `config/edge.yaml` are compared with what is
//! in effect by tests. A default that follows from another key (`sentry.token.issuer`) is made in `check`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::OutagePolicy;
use super::file::failures::RetryOn;
use super::file::{
    AccessWord, Audience, BalancePolicy, Credential, FingerprintProperty, ForwardToken, Level, LogFormat, OnWriteError,
    PoolProtocol, Preflight, Protocol, SameSite, SessionStore, UserStore,
};
use super::tls::{Hsts, TlsVersion};
use super::units::Rate;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

// server

/// `server.listeners[].protocol`
pub const LISTENER_PROTOCOL: Protocol = Protocol::Https;
/// `server.listeners[].http2`
pub const LISTENER_HTTP2: bool = true;
/// `server.listeners[].redirect_to_https`
pub const LISTENER_REDIRECT_TO_HTTPS: bool = true;
/// `server.listeners[].proxy_protocol`
pub const LISTENER_PROXY_PROTOCOL: bool = false;
/// `server.admin.address`
pub const ADMIN_ADDRESS: &str = "127.0.0.1:9090";
/// `server.health.path`, where there is a `server.health`
pub const SERVER_HEALTH_PATH: &str = "/.sentry/health";
/// `server.drain.notice`
pub const DRAIN_NOTICE: Duration = Duration::ZERO;
/// `server.drain`, which is `server.drain.requests`
pub const DRAIN: Duration = SECOND.saturating_mul(20);
/// `server.upgrade_timeout`
pub const UPGRADE_TIMEOUT: Duration = SECOND.saturating_mul(60);
/// `server.limits.connections`
pub const CONNECTIONS: usize = 20_000;
/// `server.limits.connections_per_address`
pub const CONNECTIONS_PER_ADDRESS: usize = 2048;
/// `server.limits.header_bytes`, in bytes
pub const HEADER_BYTES: usize = 32 * KIB;
/// `server.limits.header_count`
pub const HEADER_COUNT: usize = 100;
/// `server.limits.header_timeout`
pub const HEADER_TIMEOUT: Duration = SECOND.saturating_mul(10);
/// `server.limits.body_bytes`, in bytes
pub const BODY_BYTES: usize = 64 * MIB;
/// `server.limits.min_body_rate`, in bytes per second
pub const MIN_BODY_RATE: usize = 256;
/// `server.limits.streams`
pub const STREAMS: usize = 100_000;
/// `server.limits.buffer_bytes`, in bytes
pub const BUFFER_BYTES: usize = 512 * MIB;
/// `server.limits.buffer_bytes_per_address`, in bytes
pub const BUFFER_BYTES_PER_ADDRESS: usize = 32 * MIB;
/// `server.limits.requests_per_second` and `services.NAME.requests_per_second`: no limit
pub const REQUESTS_PER_SECOND: Option<u32> = None;
/// `server.timeouts.tls_handshake`
pub const TLS_HANDSHAKE_TIMEOUT: Duration = SECOND.saturating_mul(5);
/// `server.timeouts.keepalive`
pub const KEEPALIVE_TIMEOUT: Duration = SECOND.saturating_mul(75);
/// `server.timeouts.read`
pub const READ_TIMEOUT: Duration = MINUTE;
/// `server.timeouts.write`
pub const WRITE_TIMEOUT: Duration = MINUTE;

// log

/// `log.level`
pub const LOG_LEVEL: Level = Level::Info;
/// `log.access.format` and `log.audit.format`
pub const LOG_FORMAT: LogFormat = LogFormat::Json;
/// `log.access.path` and `log.audit.path`
pub const LOG_PATH: &str = "stdout";
/// `log.audit.on_write_error`
pub const AUDIT_ON_WRITE_ERROR: OnWriteError = OnWriteError::Count;

// tls

/// `tls.min_version`
pub const TLS_MIN_VERSION: TlsVersion = TlsVersion::V1_2;
/// `tls.refresh`
pub const TLS_REFRESH: Duration = SECOND.saturating_mul(5);
/// `tls.hsts`
pub const HSTS: Hsts = Hsts { max_age: DAY.saturating_mul(365), include_subdomains: false, preload: false };
/// `tls.tickets.rotation`
pub const TICKET_KEY_ROTATION: Duration = HOUR.saturating_mul(12);

// sentry

/// `sentry.token.lifetime`
pub const TOKEN_LIFETIME: Duration = HOUR.saturating_mul(12);
/// `sentry.token.leeway`
pub const TOKEN_LEEWAY: Duration = SECOND.saturating_mul(5);
/// `sentry.token.audience`
pub const TOKEN_AUDIENCE: Audience = Audience::PerService;
/// `sentry.token.cache`, in bytes
pub const TOKEN_CACHE: usize = 32 * MIB;
/// `sentry.cookie.name`
pub const TOKEN_COOKIE: &str = "__Host-JWTCookie";
/// `sentry.cookie.state_name`
pub const STATE_COOKIE: &str = "__Host-SSOState";
/// `sentry.cookie.same_site`
pub const SAME_SITE: SameSite = SameSite::Lax;
/// `sentry.ticket.lifetime`
pub const TICKET_LIFETIME: Duration = SECOND.saturating_mul(30);
/// `sentry.ticket.parameter`
pub const TICKET_PARAMETER: &str = "requestID";
/// `sentry.fingerprint`
pub const FINGERPRINT: &[FingerprintProperty] = &[FingerprintProperty::UserAgent];
/// `sentry.login.failures_per_account`
pub const FAILURES_PER_ACCOUNT: Rate = Rate { count: 5, per: MINUTE.saturating_mul(15) };
/// `sentry.login.failures_per_address`
pub const FAILURES_PER_ADDRESS: Rate = Rate { count: 300, per: MINUTE.saturating_mul(15) };
/// `sentry.login.title`
pub const LOGIN_TITLE: &str = "Sign in";
/// `sentry.login.workers`
pub const LOGIN_WORKERS: usize = 1;
/// `sentry.login.queue`
pub const LOGIN_QUEUE: usize = 1024;
/// `sentry.login.deadline`
pub const LOGIN_DEADLINE: Duration = SECOND.saturating_mul(30);

// sessions

/// `sessions.store`
pub const SESSION_STORE: SessionStore = SessionStore::Memory;
/// `sessions.memory.capacity`
pub const MEMORY_CAPACITY: usize = 1_000_000;
/// `sessions.memcached.copies`
pub const COPIES: usize = 1;
/// `sessions.memcached.servers[].weight` and `pools.NAME.servers[].weight`
pub const WEIGHT: u16 = 1;
/// `sessions.memcached.timeout`
pub const MEMCACHED_TIMEOUT: Duration = Duration::from_millis(50);
/// `sessions.memcached.sign_on_timeout`
pub const MEMCACHED_SIGN_ON_TIMEOUT: Duration = SECOND;
/// `sessions.last_access_interval`
pub const LAST_ACCESS_INTERVAL: Duration = SECOND.saturating_mul(30);
/// `sessions.session_recheck_interval`
pub const SESSION_RECHECK_INTERVAL: Duration = SECOND.saturating_mul(10);
/// `sessions.on_outage.within`
pub const ON_OUTAGE_WITHIN: Duration = SECOND.saturating_mul(30);
/// `sessions.on_outage`. Most outages of a store are short, and to refuse every request meanwhile is worse than a logout
/// that takes effect this late.
pub const ON_OUTAGE: OutagePolicy = OutagePolicy::Recent { within: ON_OUTAGE_WITHIN };

// users

/// `users.store`
pub const USER_STORE: UserStore = UserStore::Sqlite;
/// `users.sqlite.path`
pub const USERS_PATH: &str = "users.db";
/// `users.refresh`
pub const USERS_REFRESH: Duration = Duration::from_millis(500);
/// `users.password.least`, in characters
pub const MIN_PASSWORD_LENGTH: usize = 12;

// unknown_hosts

/// `unknown_hosts.status`
pub const UNKNOWN_HOSTS_STATUS: u16 = 421;

// services

/// `services.NAME.access_log`
pub const SERVICE_ACCESS_LOG: bool = true;
/// `services.NAME.idle_timeout`
pub const IDLE_TIMEOUT: Duration = MINUTE.saturating_mul(30);
/// `services.NAME.forward_token`
pub const FORWARD_TOKEN: ForwardToken = ForwardToken::None;
/// `services.NAME.identity_assertion`
pub const IDENTITY_ASSERTION: bool = false;
/// `services.NAME.identity_headers.user`
pub const USER_HEADER: &str = "X-Forwarded-User";
/// `services.NAME.identity_headers.email`
pub const EMAIL_HEADER: &str = "X-Forwarded-Email";
/// `services.NAME.identity_headers.roles`
pub const ROLES_HEADER: &str = "X-Forwarded-Groups";
/// `services.NAME.access`
pub const ACCESS: AccessWord = AccessWord::Required;
/// `services.NAME.credentials`
pub const CREDENTIALS: &[Credential] = &[Credential::Cookie];
/// `services.NAME.extends_session`
pub const EXTENDS_SESSION: bool = true;
/// `services.NAME.preflight`
pub const PREFLIGHT: Preflight = Preflight::Check;
/// `services.NAME.location_repair`
pub const LOCATION_REPAIR: bool = true;
/// `services.NAME.routes[].strip_prefix`
pub const STRIP_PREFIX: bool = false;
/// `services.NAME.routes[].redirect.status`
pub const REDIRECT_STATUS: u16 = 302;
/// `services.NAME.routes[].redirect.keep_path`
pub const REDIRECT_KEEP_PATH: bool = false;
/// `services.NAME.routes[].redirect.keep_query`
pub const REDIRECT_KEEP_QUERY: bool = true;
/// `services.NAME.routes[].files.index`
pub const FILES_INDEX: &str = "index.html";
/// `services.NAME.routes[].respond.status`
pub const RESPOND_STATUS: u16 = 200;
/// `services.NAME.routes[].respond.content_type`, where there is a body
pub const RESPOND_CONTENT_TYPE: &str = "text/plain; charset=utf-8";
/// `services.NAME.hsts`: the application's own, if any
pub const SERVICE_HSTS: Option<Hsts> = None;
/// `services.NAME.tls.client_certificate`, where there is a `client_ca`
pub const CLIENT_CERTIFICATE_REQUIRED: bool = true;

// pools

/// `pools.NAME.balance`
pub const BALANCE: BalancePolicy = BalancePolicy::RoundRobin;
/// `pools.NAME.health.http.path`
pub const HEALTH_PATH: &str = "/";
/// `pools.NAME.health.http.status`
pub const HEALTH_STATUS: RangeInclusive<u16> = 200..=399;
/// `pools.NAME.health.interval`
pub const HEALTH_INTERVAL: Duration = SECOND.saturating_mul(5);
/// `pools.NAME.health.timeout`
pub const HEALTH_TIMEOUT: Duration = SECOND;
/// `pools.NAME.health.fall`
pub const HEALTH_FALL: u32 = 3;
/// `pools.NAME.health.rise`
pub const HEALTH_RISE: u32 = 2;
/// `pools.NAME.slow_start`
pub const SLOW_START: Duration = Duration::ZERO;
/// `pools.NAME.protocol`
pub const POOL_PROTOCOL: PoolProtocol = PoolProtocol::Http1;
/// `pools.NAME.servers[].backup`
pub const BACKUP: bool = false;
/// `pools.NAME.eject.failures`
pub const EJECT_FAILURES: u32 = 3;
/// `pools.NAME.eject.for`
pub const EJECT_FOR: Duration = SECOND.saturating_mul(10);
/// `pools.NAME.eject.at_most`
pub const EJECT_AT_MOST: Duration = SECOND.saturating_mul(30);
/// `pools.NAME.eject.max_ejection_percent`
pub const MAX_EJECTION_PERCENT: u8 = 50;
/// `pools.NAME.eject.statuses`
pub const EJECT_STATUSES: &[u16] = &[];
/// `pools.NAME.retry.attempts`
pub const RETRY_ATTEMPTS: usize = 2;
/// `pools.NAME.retry.on`
pub const RETRY_ON: &[RetryOn] = &[RetryOn::Connect, RetryOn::Closed];
/// `pools.NAME.retry.budget_percent`
pub const RETRY_BUDGET_PERCENT: u8 = 20;
/// `pools.NAME.resolve.every`
pub const RESOLVE_EVERY: Duration = SECOND.saturating_mul(10);
/// `pools.NAME.timeouts.connect`
pub const CONNECT_TIMEOUT: Duration = SECOND;
/// `pools.NAME.timeouts.read`
pub const POOL_READ_TIMEOUT: Duration = MINUTE;
/// `pools.NAME.timeouts.write`
pub const POOL_WRITE_TIMEOUT: Duration = MINUTE;
/// `pools.NAME.timeouts.idle`. Node.js closes connections that were idle for 5 s, and a request that arrives on a
/// connection while the server closes it may not be sent twice.
pub const POOL_IDLE_TIMEOUT: Duration = SECOND.saturating_mul(4);
