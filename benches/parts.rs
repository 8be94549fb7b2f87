//! What the hot path is made of, each part as a closure that does it once. Used by `hot_path`, which takes the time, and
//! by `instructions`, which counts. What it works on is made in `world`.

pub mod world;

use std::future::Future;
use std::hint::black_box;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{HeaderValue, header};
use sentry_edge::auth::cookie;
use sentry_edge::auth::keys::Keys;
use sentry_edge::auth::token::Tokens;
use sentry_edge::auth::{Identity, Requirement, Verdict};
use sentry_edge::config::{Access, Credentials, OutagePolicy};
use sentry_edge::host::{Authority, Host};
use sentry_edge::path::CanonicalPath;
use sentry_edge::proxy::headers::edit::HeaderPatch;
use sentry_edge::proxy::headers::{self, Forwarding};
use sentry_edge::routes::Service;
use sentry_edge::sessions::SessionId;
use sentry_edge::upstream::Demand;
use sentry_edge::validate::{self, UncheckedRequest, head};

use world::{COOKIE, HOST, World};

/// Does a part once.
pub type Run = Box<dyn FnMut()>;

/// Makes a part ready to run.
pub type Prepare = fn() -> Run;

/// Every part by its name, in the order in which a request meets them.
pub const PARTS: [(&str, Prepare); 21] = [
    ("head, judged by its bytes", check),
    ("hygiene", hygiene),
    ("route among 10 hosts", || route(10)),
    ("route among 1,000 hosts", || route(1_000)),
    ("route among 100,000 hosts", || route(100_000)),
    ("cookie scan", cookie_scan),
    ("token, verified afresh", token_cold),
    ("token, remembered", token_cached),
    ("fingerprint", fingerprint),
    ("guard, store in memory", guard),
    ("server among 2, round robin", || server(2, "round_robin")),
    ("server among 20, round robin", || server(20, "round_robin")),
    ("server among 200, round robin", || server(200, "round_robin")),
    ("server among 2, least request", || server(2, "least_request")),
    ("server among 20, least request", || server(20, "least_request")),
    ("server among 200, least request", || server(200, "least_request")),
    ("server among 200, by its cookie", named),
    ("head, written as it came", write),
    ("head, stripped and written", strip),
    ("head, stripped, set and written", set),
    ("all of it", all),
];

fn check() -> Run {
    let world = World::new(10);
    Box::new(move || {
        let raw = black_box(&*world.raw);
        black_box(head::end(raw, 0).and_then(|_| head::check(raw))).ok();
    })
}

fn hygiene() -> Run {
    let world = World::new(10);
    Box::new(move || {
        black_box(world.inspect()).ok();
    })
}

/// From the text of an authority to the route, for a host that is another one each time.
fn route(hosts: usize) -> Run {
    let world = World::new(hosts);
    let names: Vec<String> = (0..hosts).map(|at| format!("h{at}.iqueue.test:443")).collect();
    let mut at = 0;
    Box::new(move || {
        // A stride that visits every host, and none soon after its neighbour in memory.
        at = (at + 7_919) % hosts;
        let authority = Authority::parse(black_box(&names[at])).unwrap();
        let service = world.snapshot.routes.find(&authority.host).unwrap();
        let path = CanonicalPath::of(black_box("/api/orders/17")).unwrap();
        black_box(service.route(&path));
    })
}

fn cookie_scan() -> Run {
    let world = World::new(10);
    Box::new(move || {
        black_box(cookie::find(black_box(&world.request.headers), COOKIE));
    })
}

fn token_cold() -> Run {
    let world = World::new(10);
    let (config, mut faults) = world::config(10);
    let keys = Arc::new(Keys::load(&config.sentry, &mut faults).unwrap());
    let settings = config.sentry.token;
    let metrics = world.metrics.sign_on.token_cache.clone();
    // No byte for remembered tokens: nothing is found again.
    let tokens = Tokens::new(keys, settings.issuer, settings.leeway, 0, metrics.clone());
    for _ in 0..3 {
        tokens.verify(&world.token, world.now).unwrap();
    }
    assert_eq!(metrics.hit.get(), 0, "each was verified afresh");
    Box::new(move || {
        black_box(tokens.verify(black_box(&world.token), world.now)).ok();
    })
}

fn token_cached() -> Run {
    let world = World::new(10);
    world.snapshot.guard.tokens().verify(&world.token, world.now).unwrap();
    Box::new(move || {
        black_box(world.snapshot.guard.tokens().verify(black_box(&world.token), world.now)).ok();
    })
}

fn fingerprint() -> Run {
    let world = World::new(10);
    let session = SessionId::parse(&world.claims.sid).unwrap();
    Box::new(move || {
        black_box(world.snapshot.guard.fingerprints().of(black_box(&world.request.headers), &session));
    })
}

fn guard() -> Run {
    let world = World::new(10);
    let service = world.service();
    Box::new(move || {
        black_box(world.check(&service));
    })
}

/// From a pool to an attempt, and to its end.
fn server(servers: usize, balance: &str) -> Run {
    let (world, begun) = (World::with_servers(servers, balance), Instant::now());
    Box::new(move || {
        black_box(world.snapshot.pools[0].select(black_box(&[]), demand(begun)));
    })
}

/// The same for a client whose cookie names a server.
fn named() -> Run {
    let (world, begun) = (World::with_servers(200, "{sticky: {cookie: server}}"), Instant::now());
    let pool = &world.snapshot.pools[0];
    let value = pool.cookie_value(pool.endpoints()[100]).unwrap();
    Box::new(move || {
        let pool = &world.snapshot.pools[0];
        black_box(pool.select_named(pool.named_by(black_box(&value)), &[], demand(begun)));
    })
}

const fn demand(now: Instant) -> Demand {
    Demand { key: None, is_safe: true, now }
}

fn write() -> Run {
    let world = World::new(10);
    Box::new(move || {
        black_box(world.written().wire());
    })
}

fn strip() -> Run {
    let world = World::new(10);
    Box::new(move || {
        let mut upstream = world.written();
        headers::strip(&mut upstream, &world.snapshot);
        black_box(upstream.wire());
    })
}

fn set() -> Run {
    let world = World::new(10);
    let service = world.service();
    let identity = world.check(&service);
    Box::new(move || {
        black_box(world.upstream_head(&identity, &service));
    })
}

/// What a request costs between parsing and forwarding, without input and output.
fn all() -> Run {
    let world = World::new(10);
    Box::new(move || {
        let target = world.inspect().unwrap();
        let service = Arc::clone(world.snapshot.routes.find(&target.authority.host).unwrap());
        black_box(service.route(&target.path));
        let identity = world.check(&service);
        black_box(world.upstream_head(&identity, &service));
    })
}

impl World {
    fn service(&self) -> Arc<Service> {
        Arc::clone(self.snapshot.routes.find(&Host::parse(HOST).unwrap()).unwrap())
    }

    fn inspect(&self) -> Result<validate::RequestTarget, validate::Malformed> {
        let request = black_box(&self.request);
        let incoming = UncheckedRequest {
            method: &request.method,
            uri: &request.uri,
            headers: &request.headers,
            raw: Some(&self.raw),
        };
        validate::inspect(incoming, &self.snapshot.limits)
    }

    fn check(&self, service: &Service) -> Identity {
        let demand = Requirement {
            audience: &service.audience,
            service: Some(&service.config.name),
            access: &Access::Required,
            credentials: Credentials { cookie: true, bearer: false },
            extends_session: true,
            on_outage: OutagePolicy::Deny,
        };
        let checked = self.snapshot.guard.check(black_box(&self.request.headers), &demand, self.now);
        match at_once(checked).verdict {
            Verdict::Allowed(identity) => identity,
            Verdict::Refused(reason) => panic!("refused: {}", reason.label()),
        }
    }

    fn written(&self) -> HeaderPatch<'_> {
        HeaderPatch::of(black_box(&self.request), headers::MOST_SET)
    }

    fn upstream_head(&self, identity: &Identity, service: &Service) -> Vec<u8> {
        let mut upstream = self.written();
        let forwarding = Forwarding {
            client: HeaderValue::from_static("192.0.2.7"),
            peer: IpAddr::from([192, 0, 2, 7]),
            peer_is_trusted: false,
            host: &self.request.headers[header::HOST],
            port: 443,
            request_id: &self.request_id,
        };
        headers::strip(&mut upstream, &self.snapshot);
        headers::join_cookies(&mut upstream, &self.snapshot.own_cookies, None);
        headers::set(&mut upstream, &forwarding, &self.request.headers, Some((identity, service))).unwrap();
        upstream.wire()
    }
}

/// A store in memory lets nobody wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a store in memory answers at once"),
    }
}
