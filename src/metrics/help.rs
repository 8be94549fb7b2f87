//! The help of each metric, as `/metrics` and the reference have it: what is counted, in which unit, and the values of its
//! labels. A help is a sentence or several; `make reference` takes them into docs/reference/metrics.md.

pub const REQUESTS_TOTAL: &str = "Requests answered. `status` is its class: `1xx`, `2xx`, `3xx`, `4xx` or `5xx`; a client that left first counts as 499.";
pub const REQUEST_DURATION_SECONDS: &str = "Time from the head of a request to the end of its response.";
pub const AUTH_DURATION_SECONDS: &str = "Time to decide whether a request may pass, the session store included. Public routes are not timed. `outcome` \
    is `allowed`, `login_required`, `forbidden` or `unavailable`.";
pub const AUTH_PHASE_DURATION_SECONDS: &str = "Time of a part of authentication. `phase` is `token` or `session`.";
pub const AUTH_DECISIONS_TOTAL: &str = "Decisions. `outcome` is `allowed`, `public`, `login_required`, `forbidden` or `unavailable`. Of a refusal \
    `reason` is `no_token`, `several_cookies`, `malformed`, `unknown_key`, `bad_signature`, `wrong_issuer`, \
    `wrong_audience`, `expired`, `not_yet_valid`, `no_session`, `store_away`, `fingerprint`, `revoked`, \
    `not_registered`, `missing_role`, `denied` (`access: deny`) or `address` (a client that the route does not admit), or `maintenance` of \
    a service in maintenance; of a pass `none`, or \
    `outage_recent` or `outage_token_only` where a policy granted it; of what is public `none`, or `preflight` for a CORS preflight that its route leaves to the \
    application.";
pub const TOKEN_CACHE_TOTAL: &str = "Look-ups of verified tokens. `result` is `hit` or `miss`.";
pub const SESSION_STORE_OPERATIONS_TOTAL: &str = "Operations on the session store. `result` is `ok`, `miss`, `away`, `timeout`, `garbled`, `full`, or `busy` of \
    a server that lists its keys for another client.";
pub const SESSION_STORE_DURATION_SECONDS: &str = "Time of an operation on the session store.";
pub const SESSION_STORE_UP: &str = "1 while the server answers.";
pub const SESSION_STORE_BREAKER_OPEN_TOTAL: &str =
    "Times that the circuit breaker of a server opened, for 10 to 300 ms, after failures in a row.";
pub const SESSION_STORE_BATCH_SIZE: &str = "Look-ups that shared a round trip, 1 to 64.";
pub const SESSION_STORE_TOMBSTONES_OWED: &str = "Ended sessions that a server which is away has still to be sent.";
pub const SESSION_STORE_UNHEARD_ENDS_TOTAL: &str = "Sessions that ended where this server, which has a copy, did not answer: until it has received that, an edge \
    that reaches it alone continues with them.";
pub const SESSION_STORE_MINORITY_TOTAL: &str = "Look-ups of sessions with copies that half of their servers or more did not answer: what these know, such as a \
    logout at an edge that is cut off, was not received.";
pub const TICKETS_TOTAL: &str = "Tickets by what became of them. `event` is `issued`, `redeemed`, `replayed`, `expired` (also of unknown \
    tickets and those whose session has ended) or `mismatched` (another host, browser or state).";
pub const LOGINS_TOTAL: &str = "Login attempts. `result` is `accepted`, `refused`, `limited`, `forged`, `busy`, `unavailable`, \
    `token_too_large` or `unrecorded`, while the audit log cannot be written.";
pub const LOGIN_QUEUE: &str = "Logins that wait for their turn or for a worker.";
pub const USER_DIRECTORY_UP: &str = "1 while the user directory is there and answers.";
pub const USER_DIRECTORY_LAST_READ_TIMESTAMP_SECONDS: &str =
    "When the user directory last answered a read of changes, Unix time; every `users.refresh`.";
pub const USER_DIRECTORY_OPERATIONS_TOTAL: &str = "Operations on the user directory, of logins and of the look for changes. `operation` is `find`, \
    `changed_since`, `replace_hash`, `hash_kinds`, `standing` or `ids`; `result` is `ok`, `miss` or `failed`.";
pub const UPSTREAM_REQUESTS_TOTAL: &str = "Attempts on a server of a pool. `result` is `answered` or `failed`.";
pub const UPSTREAM_DURATION_SECONDS: &str = "Time from choosing a server to the end of its response.";
pub const UPSTREAM_IN_FLIGHT: &str = "Attempts on a server that are under way: requests without a whole response, open WebSockets and streams among \
    them.";
pub const UPSTREAM_SERVER_STATE: &str =
    "1 of the state that an administrator has set for a server: `state` is `active`, `draining` or `disabled`.";
pub const UPSTREAM_UP: &str = "1, or 0 where none of the server's addresses is well: each fails its checks, or has failed as often \
    as `eject.failures` says, whether it is ejected or not.";
pub const UPSTREAM_RESPONSES_TOTAL: &str =
    "Responses of a server. `class` is that of their status: `1xx`, an upgrade, `2xx`, `3xx`, `4xx` or `5xx`.";
pub const UPSTREAM_EJECTIONS_TOTAL: &str = "Times that an address of a server was ejected. `reason` is `connect`, `tls`, `timeout`, `closed`, `malformed` or \
    `status`.";
pub const UPSTREAM_HEALTH_CHECKS_TOTAL: &str =
    "Active checks, of servers whose pool has `health`: `result` is `passed`, `failed` or `timeout`.";
pub const UPSTREAM_RETRIES_TOTAL: &str = "Requests that were sent again: `result` is `answered` or `failed`; or were not, as too many others were: \
    `over_budget`.";
pub const UPSTREAM_NAME_RESOLUTIONS_TOTAL: &str =
    "Answers to questions for the addresses of names of servers. `result` is `ok` or `failed`.";
pub const UPSTREAM_NAME_ADDRESSES: &str = "Addresses known of a server's name; a server whose name has 0 is left out.";
pub const CONNECTIONS: &str = "Open client connections. `listener` is `https`, `http` or `admin`.";
pub const CONNECTIONS_TOTAL: &str =
    "Client connections accepted. `listener` is `https`, `http`, `admin` or `control`, the control socket.";
pub const CONNECTIONS_REFUSED_TOTAL: &str = "Client connections closed unserved. `reason` is `limit` or `address`, where there are too many, or too many of \
    one address; `accept`, where accepting failed; on a listener for the PROXY protocol `untrusted_proxy`, where \
    the peer is not trusted to speak it, or `proxy_header`, where it did not in time or not well; on the control socket `user`, where the process at the \
    other end is of another user.";
pub const IDLE_CONNECTIONS_CLOSED_TOTAL: &str =
    "Client connections closed while they were idle, to make room for new ones.";
pub const TLS_HANDSHAKES_TOTAL: &str = "TLS handshakes with clients. `version` is `1.2`, `1.3`, or `none` of a handshake that failed; `resumed` is \
    `true` or `false`; `result` is `ok`, `failed` or `timeout`.";
pub const TLS_HANDSHAKE_FAILURES_TOTAL: &str = "TLS handshakes with clients that failed or took too long. `reason` is `timeout`, `gone` (the client left), \
    `malformed`, `server_name` (none, or none that a certificate covers), `version`, `parameters` (no cipher suite \
    or key exchange in common), `alpn`, `client_certificate`, `refused` (by the client) or `other`.";
pub const CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS: &str =
    "When a certificate ends, Unix time. `name` is the first name that it covers.";
pub const BUFFER_BYTES: &str =
    "Memory counted for requests in flight and for what waits of their bodies, of all clients.";
pub const MAINTENANCE: &str = "1 while the service is in maintenance.";
pub const STREAMS: &str = "Long-lived requests of signed-in users that are watched, open now.";
pub const STREAMS_CLOSED_TOTAL: &str = "Streams that were cut. `reason` is `session_ended`; `expired`, where the token or the client's certificate has \
    reached its end; or `revoked`, where the user, or any client, may not be there any more, by the directory or \
    by a reload.";
pub const UNKNOWN_CLIENTS_TOTAL: &str = "Requests of trusted proxies whose client could not be made out; they count as the proxy's. `reason` is \
    `unreadable` (an element of `X-Forwarded-For` that is no address) or `other_field` (no such field, where \
    `Forwarded` or `X-Real-IP` names a client).";
pub const HEADERS_DROPPED_TOTAL: &str = "Header fields removed from requests. `reason` is `odd_name`; `reserved`, names that only the edge may set; or \
    `spoofed`, requests refused because a name, such as `X_Forwarded_User`, can be read as a reserved one.";
pub const REQUESTS_REJECTED_TOTAL: &str = "Requests refused because they are malformed, or could be read in more than one way. `reason` is `host`, \
    `path`, `target`, `framing`, `method`, `header_name`, `expectation`, `upgrade` or `syntax`.";
pub const LIMITS_REACHED_TOTAL: &str = "Requests that reached a limit. `limit` is `header_too_large`, `header_timeout`, `body_too_large`, `body_rate`; \
    `http2_flood`, a connection that was closed because it sent frames without end that bring nothing (PING, \
    SETTINGS, resets, empty DATA); `form`, `failures_per_account`, `failures_per_device`, `failures_per_address` \
    (logins that were slowed), `login_queue`, `redirects`, `streams`, `streams_per_user`, `requests_per_second`; \
    `buffers`, requests that were refused or ended because their client, or all of them, held as much memory as \
    they may; `compressors`, responses that were sent as they are because too many others were being compressed; or \
    `file_reads`, requests for static files whose file system gave no answer in time, or that too many others waited for.";
pub const ADMIN_API_REQUESTS_TOTAL: &str = "Calls of the admin API. `result` is `ok`; `incomplete`, where servers of the store could not be reached; \
    `no_token`, `wrong_token`, `too_many_guesses`, `too_many_calls`, `origin`, `api_off`, `wrong_role`, \
    `wrong_user`, `wrong_configuration`; `bad_request`, `body_too_large`, `body_too_slow`, `method`, `no_such_path`, \
    `unknown_user`, `unknown_service`, `unknown_pool`, `unknown_server`, `no_sessions_kept`, `directory_away`; `configuration_refused`, `reload_failed` or \
    `stopping`.";
pub const AUDIT_EVENTS_SUPPRESSED_TOTAL: &str = "Events of clients that are not signed in, beyond 60 a minute of one address and 600 in all, which are not \
    written. `event` is `ticket_refused`, `loop_broken`, `login_refused` or `api_refused`.";
pub const LOG_LINES_DROPPED_TOTAL: &str = "Log lines that were lost: a write failed, or nothing took them and no more could wait. `log` is `access-log`, \
    `audit-log` or `process-log`.";
pub const LOG_WRITE_ERRORS_TOTAL: &str = "Times that a log could not be written or opened.";
pub const DRAIN_CUT_TOTAL: &str =
    "Requests that were cut because the drain was over: each has its line in the access log, with `error` `cut_off`.";
pub const CERTIFICATE_RELOADS_TOTAL: &str = "Times that certificate files had changed. `result` is `ok` or `refused`.";
pub const UPGRADES_TOTAL: &str = "Upgrades by SIGUSR2. `result` is `ok`; `failed` or `timeout`, where the process before it serves on; or `refused`, where none \
    was begun. A process that takes over goes on with the counts of the one before it.";
pub const CONFIG_RELOADS_TOTAL: &str = "Reloads of the configuration. `result` is `ok` or `refused`.";
pub const CONFIG_LAST_RELOAD_SUCCESSFUL: &str = "1 unless the last reload was refused.";
pub const CONFIG_LAST_RELOAD_TIMESTAMP_SECONDS: &str = "When a configuration was last taken up, Unix time.";
pub const CONFIG_INFO: &str =
    "1, with the first 16 hexadecimal digits of the SHA-256 of the configuration in effect, as `sha256sum` prints it.";
pub const BUILD_INFO: &str = "1, with the version.";
pub const START_TIME_SECONDS: &str = "When the process began, Unix time.";
