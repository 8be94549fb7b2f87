//! `sentry-edge check` as an operator meets it: every fault of a file at once, each with its line and what to write.
//!
//! A row of the table is a good configuration with one edit. « and » stand around what is wrong; they are taken out
//! before the file is written and tell which line must be named.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sentry_edge::config;

use crate::harness::certificates::ca;
use crate::harness::edge::HMAC_KEY;
use crate::harness::process::{sentry_edge, text};
use crate::harness::{edge, free_address, memcached, origin, write_private};

/// Nothing is wrong with it, and most of what there is stands in it.
pub const GOOD: &str = r#"server:
  threads: 2
  listeners:
    - address: "127.0.0.1:8443"
      protocol: https
    - {address: "127.0.0.1:8080", protocol: http, redirect_to_https: true}
  admin: {address: "127.0.0.1:9090"}
  trusted_proxies: ["10.0.0.0/8"]
  drain: 5s
  limits:
    connections: 100
    header_bytes: 32KiB
    header_count: 50
  timeouts: {read: 60s}
log: {level: warn}
tls:
  min_version: "1.2"
  certificates:
    - certificate: edge.pem
      key: edge.key
sentry:
  host: sentry.test
  token:
    lifetime: 12h
    sign_with: main
  keys:
    - id: main
      algorithm: HS256
      secret: {value: SECRET}
    - id: second
      algorithm: ES256
      public_key: {file: public.pem}
  cookie: {name: __Host-JWTCookie}
  ticket: {lifetime: 30s}
  fingerprint: [user_agent]
  login: {failures_per_account: 5 per 15m}
sessions: {store: memory}
users: {sqlite: {path: users.db}}
services:
  iqueue:
    hosts: [iqueue.test]
    pool: first
    idle_timeout: 30m
    routes:
      - {path: /status, access: public}
      - {path: /admin/, access: {roles: [admin]}}
      - {path: /api/, credentials: [cookie, bearer]}
  dextor:
    hosts: [dextor.test]
    pool: second
pools:
  first:
    servers: ["127.0.0.1:9001", {address: "127.0.0.1:9002", weight: 2}]
    retries: 2
  second:
    servers: ["127.0.0.1:9003"]
"#;

struct Row {
    number: usize,
    /// What is edited: this, which stands there once, into that.
    good: &'static str,
    bad: &'static str,
    /// The key that must be named, what must be said of it and what must be proposed.
    key: &'static str,
    what: &'static str,
    write: &'static str,
}

const fn row(number: usize, edit: [&'static str; 2], says: [&'static str; 3]) -> Row {
    Row { number, good: edit[0], bad: edit[1], key: says[0], what: says[1], write: says[2] }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Unknown keys, at every depth.
    row(4, ["admin: {address: \"127.0.0.1:9090\"}", "admin: {«tokenz»: {value: x}}"], ["server.admin.tokenz", "unknown key", "did you mean `tokens`? Else remove it"]),
    row(1, ["log: {level: warn}", "log: {level: warn}\n«logs»: {}"], ["logs", "unknown key", "docs/reference/configuration.md"]),
    row(2, ["  drain: 5s", "  drain: 5s\n  «drian»: 5s"], ["server.drian", "unknown key", "did you mean `drain`? Else remove it"]),
    row(3, ["address: \"127.0.0.1:8080\"", "«port»: 1, address: \"127.0.0.1:8080\""], ["server.listeners[1].port", "unknown key", "remove it"]),
    row(4, ["    idle_timeout: 30m", "    «idle-timeout»: 30m"], ["services.iqueue.idle-timeout", "unknown key", "remove it"]),
    // Types.
    row(10, ["threads: 2", "threads: «many»"], ["server.threads", "`auto` or a number of threads", "write `auto`, for example"]),
    row(11, ["drain: 5s", "drain: «soon»"], ["server.drain", "a duration such as 250ms", "write `250ms`, for example"]),
    row(12, ["drain: 5s", "drain: «5»"], ["server.drain", "a duration such as 250ms", "write `250ms`, for example"]),
    row(13, ["header_bytes: 32KiB", "header_bytes: «32KB»"], ["server.limits.header_bytes", "a size such as 32KiB", "write `32KiB`, for example"]),
    row(14, ["5 per 15m", "«5 a day»"], ["sentry.login.failures_per_account", "a rate such as `5 per 15m`", "write `5 per 15m"]),
    row(15, ["connections: 100", "connections: «-1»"], ["server.limits.connections", "expected a whole number", "write one such as 10"]),
    row(16, ["header_count: 50", "header_count: «[50]»"], ["server.limits.header_count", "expected a whole number", "write one such as 10"]),
    row(17, ["level: warn", "level: «loud»"], ["log.level", "expected one of `error`, `warn`, `info`, `debug`", "write `error"]),
    row(18, ["store: memory", "store: «redis»"], ["sessions.store", "expected one of `memory`, `memcached`", "write `memory"]),
    row(19, ["[user_agent]", "[«ip»]"], ["sentry.fingerprint[0]", "expected `user_agent` or `accept_language`", "write `user_agent"]),
    row(20, ["access: public", "access: «sometimes»"], ["services.iqueue.routes[0].access", "`public`, `optional`, `required`, `deny` or", "write `public"]),
    row(21, ["weight: 2", "weight: «heavy»"], ["pools.first.servers[1]", "`HOST:PORT` or `{address: HOST:PORT, weight: N}`", "write `HOST:PORT"]),
    row(22, ["algorithm: HS256", "algorithm: «HS265»"], ["sentry.keys[0].algorithm", "`HS256`, `ES256`, `EdDSA`, `RS256`", "write `HS256"]),
    // Values that are of their type and make no sense.
    row(30, ["threads: 2", "threads: «0»"], ["server.threads", "0 threads", "write `auto` or 1 to 1024"]),
    row(31, ["listeners:\n    - address: \"127.0.0.1:8443\"\n      protocol: https", "«listeners»:\n    - address: \"127.0.0.1:8443\"\n      protocol: http"], ["server.listeners", "no listener speaks https", "add one"]),
    row(32, ["\"127.0.0.1:8080\"", "«\"127.0.0.1:8443\"»"], ["server.listeners[1].address", "listened on twice", "give each listener its own"]),
    row(33, ["\"127.0.0.1:8443\"", "«localhost»"], ["server.listeners[0].address", "`localhost` is no address", "write IP:PORT"]),
    row(34, ["redirect_to_https: true", "redirect_to_https: «false»"], ["server.listeners[1].redirect_to_https", "plain HTTP is not served", "write `true`"]),
    row(35, ["10.0.0.0/8", "«10.0.0.0/33»"], ["server.trusted_proxies[0]", "no network", "write a CIDR"]),
    row(36, ["connections: 100", "connections: «0»"], ["server.limits.connections", "refuse every request", "write 1 or more"]),
    row(37, ["\"1.2\"", "«\"1.1\"»"], ["tls.min_version", "`1.1` is not offered", "write \"1.2\" or \"1.3\""]),
    row(38, ["retries: 2", "retries: «11»"], ["pools.first.retries", "add load", "write 0 to 10"]),
    row(39, ["weight: 2", "weight: «0»"], ["pools.first.servers[1].weight", "a weight of 0", "write 1 to 256"]),
    row(40, ["[\"127.0.0.1:9003\"]", "«[]»"], ["pools.second.servers", "no server", "name at least one"]),
    row(41, ["\"127.0.0.1:9003\"", "«\"127.0.0.1\"»"], ["pools.second.servers[0]", "is no address of a server", "write IP:PORT or NAME:PORT"]),
    row(45, ["\"127.0.0.1:9003\"", "«\"unix://app.sock\"»"], ["pools.second.servers[0]", "is no address of a server", "unix:///PATH"]),
    row(45, ["\"127.0.0.1:9003\"", "{address: \"127.0.0.1:9003\", connections: «0»}"], ["pools.second.servers[0].connections", "would get no request", "write 1 or more"]),
    row(45, ["retries: 2", "in_flight: «0»"], ["pools.first.in_flight", "would get no request", "write 1 or more"]),
    row(45, ["retries: 2", "retries: «2»\n    retry: {attempts: 2}"], ["pools.first.retries", "`retry.attempts` says this already", "remove one"]),
    row(45, ["retries: 2", "retry: {attempts: «11»}"], ["pools.first.retry.attempts", "add load", "write 0 to 10"]),
    row(45, ["retries: 2", "retry: {budget_percent: «101»}"], ["pools.first.retry.budget_percent", "101 percent", "write 0 to 100"]),
    row(45, ["retries: 2", "retry: {on: [connect, «error»]}"], ["pools.first.retry.on[1]", "`connect`, `closed`, `timeout`", "write `connect"]),
    row(45, ["retries: 2", "eject: {failures: «0»}"], ["pools.first.eject.failures", "0 failures", "`eject: false`"]),
    row(45, ["retries: 2", "eject: {for: 20s, at_most: «10s»}"], ["pools.first.eject.at_most", "shorter than `for`", "write 20s or more"]),
    row(45, ["retries: 2", "eject: {max_ejection_percent: «101»}"], ["pools.first.eject.max_ejection_percent", "101 percent", "write 0 to 100"]),
    row(45, ["retries: 2", "eject: {statuses: [503, «200»]}"], ["pools.first.eject.statuses[1]", "200 is no status of a failure", "write 400 to 599"]),
    row(45, ["retries: 2", "eject: {«failure»: 3}"], ["pools.first.eject.failure", "unknown key", "failures"]),
    row(45, ["retries: 2", "eject: «3»"], ["pools.first.eject", "`false` or `{failures: N", "write `false"]),
    row(42, ["path: /admin/", "path: «/a/../b»"], ["services.iqueue.routes[1].path", "no path to match", "write a decoded path"]),
    row(43, ["path: /admin/", "path: «/status/»"], ["services.iqueue.routes[1].path", "has two routes", "remove one"]),
    row(42, ["path: /admin/", "path: «/admin./x»"], ["services.iqueue.routes[1].path", "no path to match", "write a decoded path"]),
    row(43, ["path: /admin/", "path: «/Status»"], ["services.iqueue.routes[1].path", "is `/status` to servers that ignore case", "remove one"]),
    row(44, ["{roles: [admin]}", "{roles: «[]»}"], ["services.iqueue.routes[1].access", "empty role list", "name at least one role"]),
    row(45, ["credentials: [cookie, bearer]", "credentials: «[]»"], ["services.iqueue.routes[2].credentials", "empty list: every request would be refused", "write [cookie]"]),
    // What a route does, and for which path.
    row(46, ["path: /status,", "«path: /status, exact: /status»,"], ["services.iqueue.routes[0]", "`path` and `exact` in one route", "remove one"]),
    row(46, ["path: /status,", "exact: «/a/../b»,"], ["services.iqueue.routes[0].exact", "no path to match", "write a decoded path"]),
    row(46, ["- {path: /status,", "- {exact: /x}\n      - {exact: «/x»,"], ["services.iqueue.routes[1].exact", "`/x` has two routes", "remove one"]),
    row(46, ["- {path: /status,", "- {exact: /x}\n      - {exact: «/X»,"], ["services.iqueue.routes[1].exact", "is `/x` to servers that ignore case", "remove one"]),
    row(47, ["path: /status,", "path: /status, «pool: first, redirect: {to: /x}»,"], ["services.iqueue.routes[0]", "`pool` and `redirect` in one route", "remove all but one"]),
    row(47, ["path: /status,", "path: /status, «pool: first, redirect: {to: /x}, respond: {}»,"], ["services.iqueue.routes[0]", "`pool` and `redirect` and `respond` in one route", "remove all but one"]),
    row(47, ["path: /status,", "path: /status, «redirect: {to: /x}, respond: {}»,"], ["services.iqueue.routes[0]", "`redirect` and `respond` in one route", "remove all but one"]),
    row(48, ["path: /status,", "path: /status, redirect: {«»},"], ["services.iqueue.routes[0].redirect.to", "missing", "write a path such as /app/"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: «//other.test/»},"], ["services.iqueue.routes[0].redirect.to", "names a host without a scheme", "write a path such as /app/"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: «\"http://other.test/\"»},"], ["services.iqueue.routes[0].redirect.to", "neither a path nor an https URL", "https://new.example.com/x/"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: «\"/a b\"»},"], ["services.iqueue.routes[0].redirect.to", "has a character that no URL has", "write a path such as /app/"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: «\"https://user@other.test/\"»},"], ["services.iqueue.routes[0].redirect.to", "has a user name in it", "write a path such as /app/"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: «/a/../b»},"], ["services.iqueue.routes[0].redirect.to", "is not as browsers send it", "write `/b`"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: «/status/x»},"], ["services.iqueue.routes[0].redirect.to", "leads back to it", "write `exact` in place of `path`"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: «\"https://iqueue.test/status/x\"»},"], ["services.iqueue.routes[0].redirect.to", "leads back to it", "name another address"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: /x, status: «304»},"], ["services.iqueue.routes[0].redirect.status", "304 is no redirect", "write 301, 302, 303, 307 or 308"]),
    row(48, ["path: /status,", "path: /status, redirect: {to: /x, keep_path: «off and on»},"], ["services.iqueue.routes[0].redirect.keep_path", "expected `true` or `false`", "write `true` or `false`"]),
    row(49, ["path: /status,", "path: /status, respond: {status: «101»},"], ["services.iqueue.routes[0].respond.status", "101 is no status of a reply", "write 200 to 599"]),
    row(49, ["path: /status,", "path: /status, respond: {status: «600»},"], ["services.iqueue.routes[0].respond.status", "600 is no status of a reply", "write 200 to 599"]),
    row(49, ["path: /status,", "path: /status, respond: {body: x, content_type: «plain»},"], ["services.iqueue.routes[0].respond.content_type", "`plain` is no media type", "such as text/plain"]),
    row(49, ["path: /status,", "path: /status, respond: {body: x, content_type: «\"text/plain\\r\\nX: y\"»},"], ["services.iqueue.routes[0].respond.content_type", "is no media type", "such as text/plain"]),
    row(49, ["path: /status,", "path: /status, add_prefix: «v2»,"], ["services.iqueue.routes[0].add_prefix", "no path to match", "write a decoded path"]),
    row(49, ["path: /status,", "path: /status, add_prefix: «/a/../b»,"], ["services.iqueue.routes[0].add_prefix", "no path to match", "write a decoded path"]),
    row(49, ["path: /status,", "path: /status, respond: {}, strip_prefix: «true»,"], ["services.iqueue.routes[0].strip_prefix", "no request of this route goes to an application", "remove it"]),
    row(49, ["path: /status,", "path: /status, redirect: {to: /x}, add_prefix: «/v2»,"], ["services.iqueue.routes[0].add_prefix", "no request of this route goes to an application", "remove it"]),
    row(49, ["services:\n", "unknown_hosts: {status: 421, redirect: \"«https://www.test/»\"}\nservices:\n"], ["unknown_hosts", "`status` and `redirect`", "remove one"]),
    row(49, ["services:\n", "unknown_hosts: {status: «200»}\nservices:\n"], ["unknown_hosts.status", "200 is no error", "write 400 to 599"]),
    row(49, ["services:\n", "unknown_hosts: {redirect: «/x»}\nservices:\n"], ["unknown_hosts.redirect", "is a path of the unknown host itself", "https://www.example.com/"]),
    row(49, ["services:\n", "unknown_hosts: {redirect: «\"http://www.test/\"»}\nservices:\n"], ["unknown_hosts.redirect", "neither a path nor an https URL", "https://www.example.com/"]),
    // Services, hosts and pools.
    row(50, ["pool: first", "pool: «frist»"], ["services.iqueue.pool", "there is no pool `frist`", "name one of `pools`"]),
    row(51, ["path: /status,", "path: /status, pool: «none-such»,"], ["services.iqueue.routes[0].pool", "there is no pool `none-such`", "name one of `pools`"]),
    row(52, ["  dextor:\n    hosts: [dextor.test]\n    pool: second\n", "  «dextor»:\n    hosts: [dextor.test]\n"], ["services.dextor.pool", "missing", "name one of `pools`"]),
    row(53, ["[dextor.test]", "[dextor.test, «DEXTOR.test.»]"], ["services.dextor.hosts[1]", "dextor.test is listed twice", "remove one"]),
    row(54, ["[iqueue.test]", "[iqueue.test, «dextor.test»]"], ["services.iqueue.hosts[1]", "dextor.test belongs to service `dextor` already", "remove it from one"]),
    row(55, ["[iqueue.test]", "[iqueue.test, «sentry.test»]"], ["services.iqueue.hosts[1]", "sentry.test is the sign-on host", "a host of its own"]),
    row(56, ["[iqueue.test]", "[iqueue.test, «\"https://x.test\"»]"], ["services.iqueue.hosts[1]", "no host name", "without scheme or port"]),
    row(57, ["[iqueue.test]", "«[]»"], ["services.iqueue.hosts", "no host", "name at least one"]),
    row(58, ["  dextor:\n", "  «Dextor:»\n"], ["services.Dextor", "cannot be a name", "use a-z, 0-9"]),
    row(59, ["host: sentry.test", "host: «127.0.0.1»"], ["sentry.host", "no host name", "write the sign-on host"]),
    row(60, ["  host: sentry.test\n", ""], ["sentry.host", "missing", "write the sign-on host"]),
    // Certificates.
    row(70, ["certificate: edge.pem", "certificate: «none.pem»"], ["tls.certificates[0].certificate", "No such file", "name a PEM file"]),
    row(71, ["key: edge.key", "key: «none.key»"], ["tls.certificates[0].key", "none.key", "name a PEM file with the private key"]),
    row(72, ["key: edge.key", "key: «other.key»"], ["tls.certificates[0].key", "does not belong to the certificate", "the certificate was issued for"]),
    row(73, ["certificate: edge.pem\n      key: edge.key", "certificate: «ended.pem»\n      key: ended.key"], ["tls.certificates[0].certificate", "it ended at", "renew it"]),
    row(74, ["certificate: edge.pem", "certificate: «edge.key»"], ["tls.certificates[0].certificate", "holds no certificate", "name a PEM file"]),
    row(75, ["certificate: edge.pem\n", "certificate: «edge.pem»\n      x: y\n"], ["tls.certificates[0].x", "unknown key", "remove it"]),
    row(76, ["      key: edge.key\n", ""], ["tls.certificates[0].key", "missing", "name a PEM file"]),
    row(77, ["[dextor.test]", "[«dextor.example»]"], ["services.dextor.hosts[0]", "no certificate covers dextor.example", "add one under tls.certificates"]),
    row(78, ["host: sentry.test", "host: «sentry.example»"], ["sentry.host", "no certificate covers sentry.example", "add one under tls.certificates"]),
    row(79, ["[dextor.test]", "[dextor.test, «\"*.sub.test\"»]"], ["services.dextor.hosts[1]", "no certificate covers *.sub.test", "add one under tls.certificates"]),
    // Keys, tokens, cookies, tickets.
    row(80, ["{value: SECRET}", "«{env: SENTRY_EDGE_TEST_IS_NOT_SET}»"], ["sentry.keys[0].secret", "this environment variable is not set", "point it at the key"]),
    row(81, ["{value: SECRET}", "«{file: none.key}»"], ["sentry.keys[0].secret", "this file cannot be read: No such file", "point it at the key"]),
    row(82, ["{value: SECRET}", "«{value: thirty-one-bytes-is-one-too-few}»"], ["sentry.keys[0].secret", "31 bytes, HS256 wants 32", "`allow_weak: true`"]),
    row(83, ["{value: SECRET}", "«{}»"], ["sentry.keys[0].secret", "", "{env: NAME}, {file: PATH} or {value: TEXT}"]),
    row(84, ["{value: SECRET}", "«{value: SECRET, env: X}»"], ["sentry.keys[0].secret", "", "{env: NAME}, {file: PATH} or {value: TEXT}"]),
    row(85, ["      secret: {value: SECRET}\n", ""], ["sentry.keys[0]", "no material", "HS256 takes `secret`"]),
    row(86, ["id: second", "id: «main»"], ["sentry.keys[1].id", "two keys have this name", "rename one"]),
    row(87, ["    - id: second\n      ", "    - «»"], ["sentry.keys[1].id", "missing", "a name of its own"]),
    row(88, ["sign_with: main", "sign_with: «second»"], ["sentry.token.sign_with", "this is a public key and cannot sign", "`secret` or `private_key`"]),
    row(89, ["sign_with: main", "sign_with: «third»"], ["sentry.token.sign_with", "no key has this name", "name one of sentry.keys"]),
    row(90, ["{file: public.pem}", "«{file: edge.key}»"], ["sentry.keys[1].public_key", "no ES256 public key", "BEGIN PUBLIC KEY"]),
    row(91, ["      public_key: {file: public.pem}", "      private_key: «{file: public.pem}»"], ["sentry.keys[1].private_key", "no ES256 private key", "sentry-edge key generate"]),
    row(92, ["lifetime: 12h", "lifetime: «31days»"], ["sentry.token.lifetime", "longer than 30 days", "write 30days or less"]),
    row(93, ["lifetime: 30s", "lifetime: «61s»"], ["sentry.ticket.lifetime", "short-lived", "write 60s or less"]),
    row(94, ["name: __Host-JWTCookie", "name: «JWTCookie»"], ["sentry.cookie.name", "set by a sibling host", "begin the name with __Host-"]),
    row(95, ["name: __Host-JWTCookie", "name: «\"__Host-a b\"»"], ["sentry.cookie.name", "no cookie name", "use letters"]),
    row(96, ["name: __Host-JWTCookie", "name: «__Host-SSOState»"], ["sentry.cookie.state_name", "equals sentry.cookie.name", "its own name"]),
    row(96, ["name: __Host-JWTCookie", "name: «__Host-SSODevice»"], ["sentry.cookie.name", "another cookie of the sign-on host", "its own name"]),
    row(96, ["name: __Host-JWTCookie", "state_name: «__Host-SSOLogin»"], ["sentry.cookie.state_name", "another cookie of the sign-on host", "its own name"]),
    row(97, ["ticket: {lifetime: 30s}", "ticket: {lifetime: 30s, parameter: «a&b»}"], ["sentry.ticket.parameter", "need escaping", "use letters and digits"]),
    row(98, ["failures_per_account: 5 per 15m", "logo: «edge.pem»"], ["sentry.login.logo", "not a kind of picture", "name a .svg"]),
    row(99, ["store: memory", "store: memcached, memcached: {servers: «[]»}"], ["sessions.memcached.servers", "0 servers", "name 1 to 64"]),
    row(100, ["store: memory", "store: memcached, memcached: {servers: [\"10.0.0.1:1\", «\"::1:2\"»]}"], ["sessions.memcached.servers[1]", "cannot be used", "write IP:PORT"]),
    row(101, ["store: memory", "store: memcached, memcached: {servers: [\"a:1\", «\"a:1\"»]}"], ["sessions.memcached.servers[1]", "listed twice", "remove it"]),
    row(102, ["store: memory", "store: memcached, memcached: {servers: [{address: \"a:1\", weight: «0»}]}"], ["sessions.memcached.servers[0].weight", "a weight of 0", "write 1 to 256"]),
    row(103, ["store: memory", "store: memcached, memcached: {servers: [\"a:1\", \"b:1\"], copies: «3»}"], ["sessions.memcached.copies", "3 copies on 2 servers", "no more than there are servers"]),
    row(104, ["store: memory", "store: memcached, memcached: {servers: [\"a:1\"], copies: «0»}"], ["sessions.memcached.copies", "0 copies", "write 1 to 3"]),
    row(105, ["[iqueue.test]", "[iqueue.test, «bücher.test»]"], ["services.iqueue.hosts[1]", "no host name", "in punycode: xn--bcher-kva.test"]),
    row(106, ["key: edge.key", "key: «encrypted.key»"], ["tls.certificates[0].key", "is encrypted", "without a passphrase"]),
    // Values that would be taken and let nobody in, or everybody.
    row(110, ["{value: SECRET}", "«{file: public.pem}»"], ["sentry.keys[0].secret", "this is a PEM file, and no secret", "sentry-edge key generate"]),
    row(111, ["{value: SECRET}", "«{file: edge.pem}»"], ["sentry.keys[0].secret", "this is a PEM file, and no secret", "sentry-edge key generate"]),
    row(112, ["{value: SECRET}", "«{file: edge.key}»\n      allow_weak: true"], ["sentry.keys[0].secret", "this is a PEM file, and no secret", "sentry-edge key generate"]),
    row(113, ["lifetime: 12h", "leeway: «301s»"], ["sentry.token.leeway", "every token would be good for as much longer", "write 5m or less"]),
    row(114, ["lifetime: 12h", "leeway: «365d»"], ["sentry.token.leeway", "every token would be good for as much longer", "write 5m or less"]),
    row(115, ["lifetime: 12h", "issuer: «\"\"»"], ["sentry.token.issuer", "it is part of every token", "write 1 to 512 bytes"]),
    // What pages of other origins may do, and the port that clients connect to.
    row(117, ["idle_timeout: 30m", "websocket_origins: [«\"https://a.test/x\"»]"], ["services.iqueue.websocket_origins[0]", "`https://a.test/x` has more than scheme, host and port", "write scheme, host and port alone"]),
    row(118, ["idle_timeout: 30m", "websocket_origins: [\"null\", «\"https://*.a.test\"»]"], ["services.iqueue.websocket_origins[1]", "has a wildcard", "name each origin"]),
    row(119, ["idle_timeout: 30m", "websocket_origins: [«\"*\"»]"], ["services.iqueue.websocket_origins[0]", "it has no scheme", "write an origin as browsers send it"]),
    row(120, ["idle_timeout: 30m", "websocket_origins: [«\"wss://a.test\"»]"], ["services.iqueue.websocket_origins[0]", "the address of a WebSocket", "https:// or http://"]),
    row(121, ["idle_timeout: 30m", "websocket_origins: [«a.test»]"], ["services.iqueue.websocket_origins[0]", "it has no scheme", "write an origin as browsers send it"]),
    row(122, ["idle_timeout: 30m", "websocket_origins: [«null»]"], ["services.iqueue.websocket_origins[0]", "nothing is written here", "`null` in quotes"]),
    row(123, ["idle_timeout: 30m", "websocket_origins: [\"https://a.test\", «\"HTTPS://A.test:443\"»]"], ["services.iqueue.websocket_origins[1]", "https://a.test is listed twice", "remove one"]),
    row(124, ["idle_timeout: 30m", "websocket_origins: [«\"https://bücher.test\"»]"], ["services.iqueue.websocket_origins[0]", "is not ASCII", "in punycode: https://xn--bcher-kva.test"]),
    row(129, ["[iqueue.test]", "[iqueue.test, «\"*.Bücher.test\"»]"], ["services.iqueue.hosts[1]", "no host name", "in punycode: *.xn--bcher-kva.test"]),
    row(130, ["host: sentry.test", "host: «anmeldung.straße.test»"], ["sentry.host", "no host name", "in punycode: anmeldung.xn--strae-oqa.test"]),
    row(131, ["[iqueue.test]", "[iqueue.test, «\"bü cher.test\"»]"], ["services.iqueue.hosts[1]", "no host name", "in punycode, such as"]),
    // Certificates whose fault others would only guess at.
    row(132, ["certificate: edge.pem\n      key: edge.key", "certificate: «p521.pem»\n      key: p521.key"], ["tls.certificates[0].certificate", "it is for a key on P-521", "a key on P-256 or P-384"]),
    row(133, ["certificate: edge.pem\n      key: edge.key", "certificate: «rsa1024.pem»\n      key: rsa1024.key"], ["tls.certificates[0].certificate", "it is for an RSA key of 1024 bits", "RSA of 2048 to 8192 bits"]),
    row(134, ["certificate: edge.pem", "certificate: «turned.pem»"], ["tls.certificates[0].certificate", "the certificate of this key is number 2 of 2", "put it first"]),
    row(135, ["certificate: edge.pem\n      key: edge.key", "certificate: «mixed.pem»\n      key: mixed.key"], ["tls.certificates[0].certificate", "number 1 in the file is issued by number 3, which does not follow it", "put each certificate after"]),
    row(136, ["key: edge.key", "key: «traditional.key»"], ["tls.certificates[0].key", "is encrypted", "without a passphrase"]),
    row(137, ["  drain: 5s", "  drain: 5s\n  acme_challenge: {root: «none-such»}"], ["server.acme_challenge.root", "cannot read the folder", "name the folder"]),
    row(138, ["  drain: 5s", "  drain: 5s\n  «acme_challenge: {}»"], ["server.acme_challenge", "no `root`", "name the folder"]),
    row(139, ["  drain: 5s", "  drain: 5s\n  acme_challenge: {root: «edge.pem»}"], ["server.acme_challenge.root", "cannot read the folder", "name the folder"]),
    row(125, ["idle_timeout: 30m", "websocket_origins: [«\"https://a.test:0\"»]"], ["services.iqueue.websocket_origins[0]", "its port is none", "write an origin as browsers send it"]),
    row(126, ["idle_timeout: 30m", "preflight: «allow»"], ["services.iqueue.preflight", "expected `check` or `forward`", "write `check"]),
    row(127, ["      protocol: https", "      protocol: https\n      public_port: «0»"], ["server.listeners[0].public_port", "no client can connect to port 0", "write 1 to 65535"]),
    row(128, ["      protocol: https", "      protocol: https\n      public_port: «65536»"], ["server.listeners[0].public_port", "expected a whole number", "write one such as 10"]),
    row(200, ["idle_timeout: 30m", "request_headers: {set: {«X-Forwarded-User»: root}}"], ["services.iqueue.request_headers.set.X-Forwarded-User", "`x-forwarded-user` is reserved: the edge sets it", "choose another name"]),
    row(201, ["idle_timeout: 30m", "request_headers: {set: {«X_Forwarded_User»: root}}"], ["services.iqueue.request_headers.set.X_Forwarded_User", "is reserved", "choose another name"]),
    row(202, ["idle_timeout: 30m", "request_headers: {remove: [«X-Forwarded-For»]}"], ["services.iqueue.request_headers.remove[0]", "is reserved", "choose another name"]),
    row(203, ["idle_timeout: 30m", "identity_headers: {user: Remote-User}\n    request_headers: {set: {«remote.user»: root}}"], ["services.iqueue.request_headers.set.remote.user", "is reserved", "choose another name"]),
    row(204, ["    pool: second", "    pool: second\n    identity_headers: {user: Remote-User}\n    request_headers: {set: {X-A: a, «X-Sentry-Assertion»: b}}"], ["services.dextor.request_headers.set.X-Sentry-Assertion", "is reserved", "choose another name"]),
    row(205, ["{path: /status, access: public}", "{path: /status, request_headers: {set: {«Host»: a.test}}}"], ["services.iqueue.routes[0].request_headers.set.Host", "is reserved", "remove it"]),
    row(206, ["idle_timeout: 30m", "request_headers: {set: {«Content-Length»: 5}}"], ["services.iqueue.request_headers.set.Content-Length", "says where a message ends", "remove it"]),
    row(207, ["idle_timeout: 30m", "request_headers: {set: {«Transfer-Encoding»: chunked}}"], ["services.iqueue.request_headers.set.Transfer-Encoding", "says where a message ends", "remove it"]),
    row(208, ["idle_timeout: 30m", "request_headers: {remove: [«Connection»]}"], ["services.iqueue.request_headers.remove[0]", "it is for one connection", "remove it"]),
    row(209, ["idle_timeout: 30m", "request_headers: {set: {«X-A»: \"a\\r\\nX-B: b\"}}"], ["services.iqueue.request_headers.set.X-A", "a value with a line end", "on one line"]),
    row(210, ["idle_timeout: 30m", "request_headers: {set: {«X-A»: \"a\\0\"}}"], ["services.iqueue.request_headers.set.X-A", "a NUL", "on one line"]),
    row(211, ["idle_timeout: 30m", "request_headers: {set: {«x a»: b}}"], ["services.iqueue.request_headers.set", "a key that is no header name", "use letters, digits and -"]),
    row(212, ["idle_timeout: 30m", "request_headers: {set: {X-A: a}, remove: [«x-a»]}"], ["services.iqueue.request_headers.remove[0]", "named twice", "name it once"]),
    row(213, ["idle_timeout: 30m", "request_headers: {set: {«Authorization»: {file: none-such}}}"], ["services.iqueue.request_headers.set.Authorization", "this file cannot be read", "point it at the value"]),
    row(214, ["idle_timeout: 30m", "request_headers: {set: {«Authorization»: {env: NONE_SUCH}}}"], ["services.iqueue.request_headers.set.Authorization", "this environment variable is not set", "point it at the value"]),
    row(215, ["idle_timeout: 30m", "request_headers: {set: {«Authorization»: {file: a, env: b}}}"], ["services.iqueue.request_headers.set.Authorization", "a secret comes from one place", "write {env: NAME}"]),
    row(216, ["idle_timeout: 30m", "request_headers: {set: {«X-A»: [a, b]}}"], ["services.iqueue.request_headers.set.X-A", "a secret comes from one place", "write {env: NAME}"]),
    row(217, ["idle_timeout: 30m", "forward_token: bearer\n    request_headers: {set: {«Authorization»: x}}"], ["services.iqueue.request_headers.set.Authorization", "`forward_token: bearer` sets it too", "remove it here"]),
    row(218, ["idle_timeout: 30m", "response_headers: {set: {«Set-Cookie»: \"__Host-JWTCookie=x\"}}"], ["services.iqueue.response_headers.set.Set-Cookie", "a cookie that only the edge sets", "another cookie name"]),
    row(219, ["idle_timeout: 30m", "response_headers: {set: {«Content-Length»: 5}}"], ["services.iqueue.response_headers.set.Content-Length", "is reserved", "remove it"]),
    row(220, ["idle_timeout: 30m", "response_headers: {remove: [Server, «Transfer-Encoding»]}"], ["services.iqueue.response_headers.remove[1]", "is reserved", "remove it"]),
    row(221, ["idle_timeout: 30m", "response_headers: {remove: [«X-Request-ID»]}"], ["services.iqueue.response_headers.remove[0]", "is reserved", "remove it"]),
    row(222, ["idle_timeout: 30m", "response_headers: {set: {«X-A»: \"a\\nb\"}}"], ["services.iqueue.response_headers.set.X-A", "a value with a line end", "on one line"]),
    row(223, ["idle_timeout: 30m", "hsts: {max_age: 1d}\n    response_headers: {set: {«Strict-Transport-Security»: max-age=1}}"], ["services.iqueue.response_headers.set.Strict-Transport-Security", "`hsts` sets it too", "remove it here"]),
    row(224, ["idle_timeout: 30m", "hsts: «true»"], ["services.iqueue.hsts", "`off`, `{max_age: 365d}`", "write `off"]),
    row(225, ["idle_timeout: 30m", "hsts: «1y»"], ["services.iqueue.hsts", "`off`, `{max_age: 365d}`", "write `off"]),
    row(226, ["idle_timeout: 30m", "methods: «[]»"], ["services.iqueue.methods", "empty list", "name at least one"]),
    row(227, ["idle_timeout: 30m", "methods: [GET, «TRACE»]"], ["services.iqueue.methods[1]", "`TRACE` is never served", "remove it"]),
    row(228, ["{path: /status, access: public}", "{path: /status, methods: [«CONNECT»]}"], ["services.iqueue.routes[0].methods[0]", "`CONNECT` is never served", "remove it"]),
    row(229, ["idle_timeout: 30m", "methods: [«get»]"], ["services.iqueue.methods[0]", "`get` is no method", "in capital letters"]),
    row(230, ["idle_timeout: 30m", "methods: [GET, «GET»]"], ["services.iqueue.methods[1]", "listed twice", "remove one"]),
    row(231, ["idle_timeout: 30m", "addresses: {allow: [«10.0.0.0/33»]}"], ["services.iqueue.addresses.allow[0]", "no network", "write a CIDR"]),
    row(232, ["{path: /status, access: public}", "{path: /status, addresses: {deny: [10.0.0.1, «example.com»]}}"], ["services.iqueue.routes[0].addresses.deny[1]", "no network", "write a CIDR"]),
    row(233, ["idle_timeout: 30m", "body_bytes: «0»"], ["services.iqueue.body_bytes", "a size such as 32KiB", "write `32KiB`, for example"]),
    row(234, ["  drain: 5s", "  drain: 5s\n  health: {path: «health»}"], ["server.health.path", "`health` is no path for this", "such as /.sentry/health"]),
    row(235, ["  drain: 5s", "  drain: 5s\n  health: {path: «/»}"], ["server.health.path", "is no path for this", "such as /.sentry/health"]),
    row(236, ["  drain: 5s", "  drain: 5s\n  health: {path: «/.sentry/logout»}"], ["server.health.path", "a path of the sign-on", "such as /.sentry/health"]),
    row(116, ["id: second", "id: «\"a\\tb\"»"], ["sentry.keys[1].id", "it is part of every token", "write 128 bytes at most"]),
    // Static files.
    row(600, ["{path: /status, access: public}", "{path: /status, «files»: {}}"], ["services.iqueue.routes[0].files", "no `root`", "name the folder"]),
    row(601, ["{path: /status, access: public}", "{path: /status, files: {root: «none»}}"], ["services.iqueue.routes[0].files.root", "cannot read the folder", "name the folder"]),
    row(602, ["{path: /status, access: public}", "{path: /status, files: {root: «edge.pem»}}"], ["services.iqueue.routes[0].files.root", "edge.pem is no folder", "name the folder"]),
    row(603, ["{path: /status, access: public}", "{path: /status, files: {root: «/»}}"], ["services.iqueue.routes[0].files.root", "the whole file system", "name the folder"]),
    row(604, ["{path: /status, access: public}", "{path: /status, files: {root: «.»}}"], ["services.iqueue.routes[0].files.root", "the configuration is below it", "nothing in it but the files"]),
    row(605, ["{path: /status, access: public}", "{path: /status, files: {root: /etc, index: «a/b.html»}}"], ["services.iqueue.routes[0].files.index", "`a/b.html` is no name of a file", "write one such as index.html"]),
    row(606, ["{path: /status, access: public}", "{path: /status, files: {root: /etc, fallback: «index.html»}}"], ["services.iqueue.routes[0].files.fallback", "no path of a file below `root`", "/index.html"]),
    row(607, ["{path: /status, access: public}", "{path: /status, files: {root: /etc, fallback: «/../x»}}"], ["services.iqueue.routes[0].files.fallback", "no path of a file below `root`", "/index.html"]),
    row(608, ["{path: /status, access: public}", "{path: /status, files: {root: /etc, cache_control: «\"a\\nb\"»}}"], ["services.iqueue.routes[0].files.cache_control", "no value of a field", "write one such as"]),
    row(609, ["{path: /status, access: public}", "«{path: /status, pool: first, files: {root: /etc}}»"], ["services.iqueue.routes[0]", "`pool` and `files` in one route", "remove all but one"]),
    // Pages for errors, and maintenance.
    row(610, ["idle_timeout: 30m", "error_pages: {«502»: none.html}"], ["services.iqueue.error_pages.502", "cannot read", "name a file with HTML"]),
    row(611, ["idle_timeout: 30m", "error_pages: {«200»: users.db}"], ["services.iqueue.error_pages.200", "not the status of an error", "write one of 400 to 599"]),
    row(612, ["idle_timeout: 30m", "error_pages: {«\"5xx\"»: users.db}"], ["services.iqueue.error_pages.5xx", "not the status of an error", "write one of 400 to 599"]),
    row(613, ["idle_timeout: 30m", "error_pages: {502: «[users.db]»}"], ["services.iqueue.error_pages.502", "a text", "write one in quotes"]),
    row(614, ["idle_timeout: 30m", "maintenance: {«path»: /run/x}"], ["services.iqueue.maintenance.path", "unknown key", "remove it"]),
    row(615, ["idle_timeout: 30m", "maintenance: {file: «\"\"»}"], ["services.iqueue.maintenance.file", "empty", "name a file"]),
    row(616, ["idle_timeout: 30m", "maintenance: {file: away, except: {addresses: [«10.0.0.0/33»]}}"], ["services.iqueue.maintenance.except.addresses[0]", "no network", "write a CIDR"]),
    row(617, ["idle_timeout: 30m", "maintenance: «/run/x»"], ["services.iqueue.maintenance", "expected keys with their values", "or as {key: value}"]),
];

/// Every bad configuration with its row's number and what is said of it.
pub fn bad() -> impl Iterator<Item = (usize, String, &'static str)> {
    ROWS.iter().map(|row| (row.number, without_marks(&GOOD.replace(row.good, row.bad)), row.what))
}

/// A folder with all files that a configuration may name, and `text` in it as edge.yaml.
pub fn folder(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| write_private(folder.path().join(name), text);
    let certificate = ca().issue(&["sentry.test", "iqueue.test", "dextor.test"]);
    let ended = ca().issue_ended(&["sentry.test", "iqueue.test", "dextor.test"]);
    write("edge.pem", &certificate.pem);
    write("edge.key", &certificate.key);
    write("ended.pem", &ended.pem);
    write("ended.key", &ended.key);
    write("other.key", &ca().issue(&["other.test"]).key);
    write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    write(
        "traditional.key",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n",
    );
    write("turned.pem", &format!("{}{}", ca().pem, certificate.pem));
    for (name, text) in made_once() {
        write(name, text);
    }
    write("public.pem", &rcgen::KeyPair::generate().unwrap().public_key_pem());
    // An empty file is an empty directory.
    write("users.db", "");
    write("edge.yaml", text);
    let file = folder.path().join("edge.yaml");
    (folder, file)
}

/// Pairs that take some time to make: keys that TLS libraries do not take, and a chain with its middle at the end.
fn made_once() -> &'static [(&'static str, String)] {
    static MADE: OnceLock<Vec<(&str, String)>> = OnceLock::new();
    MADE.get_or_init(|| {
        let between = ca().issue_ca("between");
        let leaf = between.issue(&["sentry.test", "iqueue.test", "dextor.test"]);
        let mut made = vec![("mixed.pem", format!("{}{}{}", leaf.pem, ca().pem, between.pem)), ("mixed.key", leaf.key)];
        let folder = tempfile::tempdir().unwrap();
        for (files, kind) in [
            (["p521.pem", "p521.key"], ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"]),
            (["rsa1024.pem", "rsa1024.key"], ["-newkey", "rsa:1024", "-sha256", "-batch"]),
        ] {
            let [certificate, key] = files.map(|file| folder.path().join(file));
            let output = std::process::Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=x"])
                .args(["-addext", "subjectAltName=DNS:sentry.test,DNS:iqueue.test,DNS:dextor.test"])
                .args(kind)
                .arg("-out")
                .arg(&certificate)
                .arg("-keyout")
                .arg(&key)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            made.push((files[0], std::fs::read_to_string(certificate).unwrap()));
            made.push((files[1], std::fs::read_to_string(key).unwrap()));
        }
        made
    })
}

pub struct Checked {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(arguments: &[&str]) -> Checked {
    let output = sentry_edge(arguments);
    Checked { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

pub fn check(file: &Path) -> Checked {
    run(&["check", "-c", file.to_str().unwrap()])
}

fn check_text(text: &str) -> Checked {
    let (_folder, file) = folder(&text.replace("SECRET", HMAC_KEY));
    check(&file)
}

/// The line, counted from 1, on which the edit of a row marks what is wrong.
fn marked_line(text: &str, row: &Row) -> Option<usize> {
    let at = text.find(row.bad)? + row.bad.find('«')?;
    Some(text[..at].lines().count().max(1) + usize::from(text[..at].ends_with('\n')))
}

pub fn without_marks(text: &str) -> String {
    text.replace(['«', '»'], "").replace("SECRET", HMAC_KEY)
}

/// Whether a line of the output says what a row wants to be said.
fn says(line: &str, file: &Path, number: Option<usize>, row: &Row) -> bool {
    let Some(rest) = line.strip_prefix(&format!("{}:", file.display())) else { return false };
    let Some((found, rest)) = rest.split_once(": ") else { return false };
    let Some((said, write)) = rest.rsplit_once("; ") else { return false };
    number.is_none_or(|number| found == number.to_string())
        && said.starts_with(&format!("{}: ", row.key))
        && said.contains(row.what)
        && write.contains(row.write)
}

/// YAML 1.1 tools write `off` as `false`.
#[test]
fn false_is_off_wherever_off_is_a_word_and_true_is_none() {
    for (good, with) in [
        ("log: {level: warn}", "log: {level: warn, access: {format: WORD}, audit: {format: WORD}}"),
        ("min_version: \"1.2\"", "min_version: \"1.2\"\n  hsts: WORD"),
    ] {
        let parsed = |word: &str| {
            let text = without_marks(&GOOD.replace(good, &with.replace("WORD", word)));
            config::parse(Path::new("/edge.yaml"), &text).unwrap()
        };
        let ((off, faults), (same, _)) = (parsed("off"), parsed("false"));
        assert_eq!(faults.to_string(), "");
        assert!(off == same, "{with}");
        assert!(off != config::parse(Path::new("/edge.yaml"), &without_marks(GOOD)).unwrap().0, "{with}");
        let (_, faults) = parsed("true");
        assert!(faults.to_string().contains("expected `"), "{faults}");
    }
}

#[test]
fn a_good_file_says_so() {
    let (_folder, file) = folder(&without_marks(GOOD));
    let checked = check(&file);
    assert_eq!(checked.stdout, format!("{}: configuration OK\n", file.display()), "{}", checked.stderr);
    assert_eq!((checked.status, checked.stderr.as_str()), (Some(0), ""));
}

#[test]
fn each_fault_is_named_with_its_line_and_what_to_write_and_nothing_else_is() {
    let mut wrong = Vec::new();
    for row in ROWS {
        let number = row.number;
        assert_eq!(GOOD.matches(row.good).count(), 1, "row {number}: `{}` stands once", row.good);
        let marked = GOOD.replace(row.good, row.bad);
        let (_folder, file) = folder(&without_marks(&marked));
        let checked = check(&file);
        // Row 75's key stands one line below its mark.
        let expected = marked_line(&marked, row).map(|line| line + usize::from(number == 75));
        let lines: Vec<&str> = checked.stderr.lines().collect();
        let named = matches!(lines[..], [line] if says(line, &file, expected, row));
        let refused = (checked.status, checked.stdout.as_str()) == (Some(1), "");
        if !named || !refused || checked.stderr.contains(HMAC_KEY) {
            wrong.push(format!("row {number}, line {expected:?}, status {:?}:\n{}", checked.status, checked.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_faults_of_a_file_are_named_at_once_in_the_order_of_its_lines() {
    let mut marked = GOOD.to_owned();
    let mut rows = Vec::new();
    // Those whose places do not overlap, and that do not hide one another.
    for number in
        [1, 2, 3, 4, 10, 13, 14, 15, 16, 17, 19, 20, 32, 35, 37, 38, 41, 42, 50, 52, 54, 70, 82, 89, 92, 93, 94]
    {
        let row = ROWS.iter().find(|row| row.number == number).unwrap();
        assert_eq!(marked.matches(row.good).count(), 1, "row {number} meets another");
        marked = marked.replace(row.good, row.bad);
        rows.push(row);
    }
    let (_folder, file) = folder(&without_marks(&marked));
    let checked = check(&file);
    assert_eq!((checked.status, checked.stdout.as_str()), (Some(1), ""));
    let lines: Vec<&str> = checked.stderr.lines().collect();
    for row in &rows {
        let number = marked_line(&marked, row);
        let named = lines.iter().any(|line| says(line, &file, number, row));
        assert!(named, "row {}, line {number:?}: not in\n{}", row.number, checked.stderr);
    }
    assert_eq!(lines.len(), rows.len(), "and nothing else:\n{}", checked.stderr);
    let numbers = lines.iter().map(|line| line.split(':').nth(1).unwrap().parse::<usize>().unwrap());
    assert!(numbers.is_sorted(), "{}", checked.stderr);
    assert!(!checked.stderr.contains(HMAC_KEY));
}

#[test]
fn a_certificate_that_covers_no_host_leaves_every_host_named() {
    let (folder, file) = folder(&without_marks(GOOD));
    let other = ca().issue(&["other.test"]);
    std::fs::write(folder.path().join("edge.pem"), other.pem).unwrap();
    std::fs::write(folder.path().join("edge.key"), other.key).unwrap();
    let checked = check(&file);
    assert_eq!(checked.status, Some(1));
    for (key, host) in
        [("sentry.host", "sentry"), ("services.iqueue.hosts[0]", "iqueue"), ("services.dextor.hosts[0]", "dextor")]
    {
        assert!(checked.stderr.contains(&format!("{key}: no certificate covers {host}.test; ")), "{}", checked.stderr);
    }
}

#[test]
fn an_uncovered_host_is_named_beside_faults_elsewhere() {
    let text = without_marks(GOOD).replace("[dextor.test]", "[dextor.example]").replace("drain: 5s", "drain: soon");
    let (_folder, file) = folder(&text);
    let checked = check(&file);
    assert!(checked.stderr.contains("server.drain: "), "{}", checked.stderr);
    assert!(checked.stderr.contains("no certificate covers dextor.example"), "{}", checked.stderr);
}

#[test]
fn what_is_behind_a_faulty_element_of_a_list_is_named_by_its_own_place() {
    let text = without_marks(GOOD)
        .replace("[\"127.0.0.1:9003\"]", "\n      - 9003\n      - \"127.0.0.1:9004\"\n      - []\n      - nowhere")
        .replace("hosts: [iqueue.test]", "hosts:\n      - [iqueue.test]\n      - iqueue.test\n      - a_b");
    let (_folder, file) = folder(&text);
    let line = |of: &str| text.lines().position(|line| line.trim() == of).unwrap() + 1;
    let checked = check(&file);
    for (number, key) in [
        (line("- 9003"), "pools.second.servers[0]"),
        (line("- []"), "pools.second.servers[2]"),
        (line("- nowhere"), "pools.second.servers[3]"),
        (line("- [iqueue.test]"), "services.iqueue.hosts[0]"),
        (line("- a_b"), "services.iqueue.hosts[2]"),
    ] {
        assert!(checked.stderr.contains(&format!(":{number}: {key}: ")), "{number} {key}: {}", checked.stderr);
    }
    assert_eq!(checked.stderr.lines().count(), 5, "{}", checked.stderr);
}

#[test]
fn what_is_behind_a_part_that_cannot_be_used_is_named_by_its_own_place() {
    let text = GOOD
        .replace("    - id: main\n", "    - algorithm: HS256\n      secret: {value: SECRET}\n    - id: main\n")
        .replace("public.pem", "none.pem")
        .replace("    - certificate: edge.pem\n", "    - key: edge.key\n    - certificate: edge.pem\n")
        .replace("      key: edge.key\n", "      key: other.key\n");
    let checked = check_text(&text);
    for key in
        ["sentry.keys[0].id", "sentry.keys[2].public_key", "tls.certificates[0].certificate", "tls.certificates[1].key"]
    {
        assert!(checked.stderr.contains(&format!(": {key}: ")), "{key}: {}", checked.stderr);
    }
    assert_eq!(checked.stderr.lines().count(), 4, "{}", checked.stderr);

    let checked = check_text(&GOOD.replace("[dextor.test]", "[a_b, dextor.test, dextor.example]"));
    for key in ["hosts[0]: `a_b` is no host name", "hosts[2]: no certificate covers dextor.example"] {
        assert!(checked.stderr.contains(&format!(": services.dextor.{key}")), "{key}: {}", checked.stderr);
    }
    assert_eq!(checked.stderr.lines().count(), 2, "{}", checked.stderr);
}

#[test]
fn a_weak_key_is_taken_where_the_file_says_that_it_is_meant() {
    let checked = check_text(&GOOD.replace("{value: SECRET}", "{value: short}\n      allow_weak: true"));
    assert_eq!(checked.status, Some(0), "{}", checked.stderr);
}

#[test]
fn a_section_with_nothing_under_it_says_nothing() {
    let bare = |text: &str, section: &str| {
        assert_eq!(text.matches(section).count(), 1, "{section}");
        text.replace(section, section.split_once(' ').unwrap().0)
    };
    for section in [
        "log: {level: warn}",
        "sessions: {store: memory}",
        "ticket: {lifetime: 30s}",
        "trusted_proxies: [\"10.0.0.0/8\"]",
    ] {
        let checked = check_text(&bare(GOOD, section));
        assert_eq!(checked.status, Some(0), "{section}: {}", checked.stderr);
    }
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    for (number, edit, line, words) in [
        (1, ("threads: 2", "threads: [2"), 3, "not YAML"),
        (2, ("threads: 2", "threads: 2\n  threads: 3"), 2, "a key that is on line 2 already"),
        (3, ("  dextor:\n", "  iqueue:\n"), 40, "a key that is on line 40 already"),
        (4, ("  drain: 5s", "\tdrain: 5s"), 9, "not YAML"),
        (5, ("drain: 5s", "drain: *nobody"), 9, "not YAML"),
        (6, ("drain: 5s", "drain: \"5s"), 9, "not YAML"),
        (7, ("drain: 5s", "drain: a: b"), 9, "not YAML"),
    ] {
        assert_eq!(GOOD.matches(edit.0).count(), 1, "row {number}");
        let checked = check_text(&GOOD.replace(edit.0, edit.1));
        assert_eq!((checked.status, checked.stdout.as_str()), (Some(1), ""), "row {number}");
        assert_eq!(checked.stderr.lines().count(), 1, "row {number}: {}", checked.stderr);
        let place = checked.stderr.split_once("edge.yaml:").and_then(|(_, rest)| rest.split(':').next()?.parse().ok());
        // The parser may notice a line or more after the mistake, never before it.
        let named: usize = place.unwrap_or_else(|| panic!("row {number}: no line in {}", checked.stderr));
        assert!(named >= line, "row {number}: line {line}, not {named}: {}", checked.stderr);
        assert!(checked.stderr.contains(words), "row {number}: {}", checked.stderr);
        assert!(!checked.stderr.contains(HMAC_KEY), "row {number}: {}", checked.stderr);
    }
}

#[test]
fn a_file_that_cannot_be_read_or_is_no_mapping_is_told() {
    let checked = run(&["check", "-c", "/nonexistent/edge.yaml"]);
    assert_eq!(checked.status, Some(1));
    assert!(
        checked.stderr.starts_with("/nonexistent/edge.yaml: cannot read the file: No such file"),
        "{}",
        checked.stderr
    );
    for text in ["", "# nothing\n", "[]", "edge", "- a\n- b\n", "42", "null"] {
        let checked = check_text(text);
        assert_eq!(checked.status, Some(1), "{text:?}");
        assert!(checked.stderr.contains("sentry.host: missing"), "{text:?}: {}", checked.stderr);
    }
}

#[test]
fn no_secret_is_printed_wherever_it_was_put_by_mistake() {
    const SLIP: &str = "hunter2-hunter2-hunter2";
    for (number, bad) in [
        (1, "secret: hunter2-hunter2-hunter2"),
        (2, "secret: [hunter2-hunter2-hunter2]"),
        (3, "secret: {hunter2-hunter2-hunter2}"),
        (4, "secret: {hunter2-hunter2-hunter2: }"),
        (5, "secret: {value: [hunter2-hunter2-hunter2]}"),
        (6, "secret: {value: {hunter2-hunter2-hunter2: x}}"),
        (7, "secret: {value: hunter2-hunter2-hunter2}"),
        (8, "secret: {value: hunter2-hunter2-hunter2, value: hunter2-hunter2-hunter2}"),
        (9, "secret: {value: hunter2-hunter2-hunter2, env: X}"),
        (10, "secret: {value: \"hunter2-hunter2-hunter2}"),
        (11, "secret: {value: *hunter2-hunter2-hunter2}"),
        (12, "secret: !hunter2-hunter2-hunter2 x"),
        (13, "private_key: {value: hunter2-hunter2-hunter2}"),
        (14, "private_key: hunter2-hunter2-hunter2"),
        (15, "public_key: hunter2-hunter2-hunter2"),
        (16, "secret: {vlaue: hunter2-hunter2-hunter2}"),
        (17, "allow_weak: hunter2-hunter2-hunter2"),
    ] {
        let checked = check_text(&GOOD.replace("secret: {value: SECRET}", bad));
        assert_eq!(checked.status, Some(1), "row {number}");
        assert!(!checked.stderr.contains(SLIP) && checked.stdout.is_empty(), "row {number}: {}", checked.stderr);
        assert!(checked.stderr.contains("edge.yaml:"), "row {number}: {}", checked.stderr);
    }
    let number = check_text(&GOOD.replace("{value: SECRET}", "{value: 73313373733137337331337373313373}"));
    assert!(!number.stderr.contains("7331"), "{}", number.stderr);
    let key = check_text(&GOOD.replace(
        "    - id: main\n      algorithm: HS256\n      secret: {value: SECRET}\n",
        "    - hunter2-hunter2-hunter2\n",
    ));
    assert!(key.status == Some(1) && !key.stderr.contains(SLIP), "{}", key.stderr);
}

#[test]
fn run_with_t_says_the_same_as_check() {
    for text in [without_marks(GOOD), without_marks(GOOD).replace("drain: 5s", "drain: soon\n  x: y"), "[".into()] {
        let (_folder, file) = folder(&text);
        let checked = check(&file);
        for flag in ["-t", "--test"] {
            let tried = run(&["run", "-c", file.to_str().unwrap(), flag]);
            assert_eq!(tried.status, checked.status, "{flag}");
            assert_eq!((tried.stdout, tried.stderr), (checked.stdout.clone(), checked.stderr.clone()), "{flag}");
        }
    }
}

#[test]
fn a_configuration_with_faults_is_not_served() {
    let (_folder, file) = folder(&without_marks(GOOD).replace("drain: 5s", "drain: soon"));
    let served = run(&["run", "-c", file.to_str().unwrap()]);
    assert_eq!((served.status, served.stdout.as_str()), (Some(1), ""));
    assert_eq!(served.stderr, check(&file).stderr);
}

#[test]
fn usage_errors_exit_with_2_and_touch_nothing() {
    for arguments in [
        &["check"][..],
        &["run"],
        &["run", "-t"],
        &["check", "-c"],
        &["check", "-c", "a", "-c", "b"],
        &["check", "-c", "a", "--conect"],
        &["check", "-c", "a", "b"],
        &["chekc", "-c", "a"],
        &["user", "-c", "a"],
        &["key", "generate"],
        &["key", "generate", "--algorithm", "none"],
        &["user", "list"],
        &[],
    ] {
        let tried = run(arguments);
        assert_eq!((tried.status, tried.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", tried.stderr);
        assert!(!tried.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn check_with_connect_names_everything_that_cannot_be_reached() {
    let (memcached, iqueue) = (memcached(), origin("iqueue"));
    let (first, second) = (free_address(), free_address());
    let builder = || edge().service("iqueue", &iqueue).service("dextor", &iqueue);

    let (_folder, file) = builder().memcached(&memcached.address()).write();
    let reached = run(&["check", "-c", file.to_str().unwrap(), "--connect"]);
    assert_eq!((reached.status, reached.stderr.as_str()), (Some(0), ""), "all are there");

    let (folder, file) = builder()
        .pool("dextor", &format!("{{servers: [\"{first}\", \"{}\", \"{second}\"]}}", iqueue.address))
        .memcached("unix:///nonexistent/memcached.sock")
        .write();
    assert_eq!(run(&["check", "-c", file.to_str().unwrap()]).status, Some(0), "nothing is dialled unasked");
    let tried = run(&["check", "-c", file.to_str().unwrap(), "--connect"]);
    assert_eq!((tried.status, tried.stdout.as_str()), (Some(1), ""));
    let lines: Vec<&str> = tried.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", tried.stderr);
    assert!(lines[0].starts_with(&format!("pools.dextor: {first} cannot be reached")), "{}", lines[0]);
    assert!(lines[1].starts_with(&format!("pools.dextor: {second} cannot be reached")), "{}", lines[1]);
    assert!(lines[2].starts_with("sessions.memcached: unix:///nonexistent/memcached.sock"), "{}", lines[2]);
    drop(folder);
}

/// A small generator of numbers that are always the same (Vigna's splitmix64), so that a failure can be seen again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

/// One slip of the pen: a line lost, doubled, moved or indented; two values swapped; a character put in, or out.
fn slip(text: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (at, other) = (dice.roll(lines.len()), dice.roll(lines.len()));
    match dice.roll(8) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(other, lines[at].clone()),
        2 => lines.swap(at, other),
        3 => lines[at].insert_str(0, ["  ", " ", "\t", "- "][dice.roll(4)]),
        4 => lines[at] = lines[at].strip_prefix("  ").unwrap_or(&lines[at]).to_owned(),
        5 => {
            let value = |line: &str| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
            if let (Some((one, a)), Some((two, b))) = (value(&lines[at]), value(&lines[other])) {
                lines[at] = format!("{one}: {b}");
                lines[other] = format!("{two}: {a}");
            }
        }
        6 => {
            let place = dice.roll(lines[at].len() + 1);
            let odd = [
                '{', '}', '[', ']', ':', ',', '"', '\'', '&', '*', '!', '|', '>', '#', '%', '@', '\0', '\u{feff}', 'é',
                '0', '~', '<',
            ];
            if lines[at].is_char_boundary(place) {
                lines[at].insert(place, odd[dice.roll(odd.len())]);
            }
        }
        _ => {
            let place = dice.roll(lines[at].len());
            if lines[at].is_char_boundary(place) && place < lines[at].len() {
                lines[at].remove(place);
            }
        }
    }
    lines.join("\n")
}

#[test]
fn whatever_is_written_the_parser_answers_with_a_configuration_or_with_faults() {
    let good = without_marks(GOOD);
    let (mut whole, mut faulty, mut broken) = (0, 0, 0);
    for round in 0..4000 {
        let mut dice = Dice(round);
        let mut text = good.clone();
        for _ in 0..=dice.roll(3) {
            text = slip(&text, &mut dice);
        }
        let parsed = std::panic::catch_unwind(|| config::parse(Path::new("edge.yaml"), &text));
        match parsed.unwrap_or_else(|_| panic!("round {round}: the parser panicked over\n{text}")) {
            Ok((_, faults)) if faults.is_empty() => whole += 1,
            Ok((_, faults)) => {
                faulty += 1;
                let said = faults.to_string();
                let lines = faults.len() + faults.warnings().iter().count();
                assert_eq!(said.lines().count(), lines, "round {round}: a fault is one line: {said}");
                assert!(!said.contains(HMAC_KEY), "round {round}: {said}\n{text}");
            }
            Err(faults) => {
                broken += 1;
                let said = faults.to_string();
                assert!(!faults.is_empty() && !said.contains(HMAC_KEY), "round {round}: {said}\n{text}");
            }
        }
    }
    assert!(whole > 100 && faulty > 100 && broken > 100, "all three were met: {whole}, {faulty}, {broken}");
}

#[test]
fn a_file_made_to_exhaust_the_parser_is_refused() {
    let deep = "[".repeat(5_000);
    let bomb = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        let before = format!("*a{}", n - 1);
        text + &format!("a{n}: &a{n} [{before}, {before}, {before}, {before}]\n")
    });
    for text in [deep.as_str(), &format!("x: {deep}"), &bomb, &"{".repeat(5_000), &"- ".repeat(5_000)] {
        let parsed =
            std::panic::catch_unwind(|| config::parse(Path::new("edge.yaml"), text).map(|(_, faults)| faults.len()));
        let faults = parsed.expect("no panic");
        assert!(faults.is_err() || faults.is_ok_and(|faults| faults > 0));
    }
}
