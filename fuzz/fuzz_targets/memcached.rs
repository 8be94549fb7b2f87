//! Responses of memcached, or of any other program in its place: every result is in the response, whole, and under the key of
//! the request; and no operation waits for a response that has broken off.
#![no_main]

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sentry_edge::clock::UnixTime;
use sentry_edge::metrics::{Metrics, StoreMetrics};
use sentry_edge::sessions::memcached::{MemcachedServer, Settings};
use sentry_edge::sessions::replicated::node::Node;
use sentry_edge::sessions::{
    Count, CounterKey, Redemption, SessionId, SessionRecord, StoreError, StoredValue, TicketId, Tombstone,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

/// Far longer than anything takes here, so that an operation that waits is found.
const TIMEOUT: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(60);

/// Responses that async-memcached reads as a miss, whatever the command: no server that is in sync sends them there, and they
/// have no key that could be compared.
const BARE: &str = "HD\r\n";
const NO_OP: &str = "MN\r\n";

struct World {
    runtime: Runtime,
    /// What every connection is answered.
    reply: Arc<Mutex<Vec<u8>>>,
    server: String,
    metrics: StoreMetrics,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let reply = Arc::new(Mutex::new(Vec::new()));
        let path = std::env::temp_dir().join(format!("sentry-edge-fuzz-{}.sock", std::process::id()));
        std::fs::remove_file(&path).ok();
        let listener = runtime.block_on(async { UnixListener::bind(&path) }).unwrap();
        runtime.spawn(serve(listener, Arc::clone(&reply)));
        let metrics = Metrics::new("fuzz").unwrap().sign_on.store.clone();
        World { runtime, reply, server: format!("unix://{}", path.display()), metrics }
    })
}

async fn serve(listener: UnixListener, reply: Arc<Mutex<Vec<u8>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(answer(socket, reply.lock().unwrap().clone()));
    }
}

/// All of it at the first command, and nothing after it.
async fn answer(mut socket: UnixStream, reply: Vec<u8>) -> io::Result<()> {
    let mut commands = [0; 1024];
    if socket.read(&mut commands).await? == 0 {
        return Ok(());
    }
    socket.write_all(&reply).await?;
    socket.shutdown().await?;
    while socket.read(&mut commands).await? > 0 {}
    Ok(())
}

/// Whether a value stands in the reply as it would have to: announced by its length, under the key.
fn says(reply: &[u8], key: &str, value: &[u8]) -> bool {
    let block = [b"\r\n", value, b"\r\n"].concat();
    let places = reply.windows(block.len()).enumerate().filter(|(_, window)| *window == block);
    places.map(|(at, _)| at).any(|at| {
        let begin = reply[..at].windows(2).rposition(|window| window == b"\r\n").map_or(0, |end| end + 2);
        let line = String::from_utf8_lossy(&reply[begin..at]);
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let announced =
            words.next() == Some("VA") && words.next().and_then(|word| word.parse().ok()) == Some(value.len());
        announced && words.any(|word| word.strip_prefix('k') == Some(key))
    })
}

fn has(reply: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| reply.windows(word.len()).any(|window| window == word.as_bytes()))
}

fn encoded(held: &StoredValue) -> Vec<u8> {
    match held {
        StoredValue::Session(record) => record.encode(),
        StoredValue::Ended(tombstone) => tombstone.encode(),
    }
}

/// What must not happen, whatever the command.
fn in_time<T>(outcome: Result<T, StoreError>) -> Option<T> {
    assert_ne!(outcome.as_ref().err(), Some(&StoreError::TimedOut), "it waits for what will not come");
    outcome.ok()
}

async fn ask(kind: u8, reply: &[u8], server: &MemcachedServer) {
    let session = SessionId::parse("0123456789abcdef0123456789abcdef").unwrap().key();
    let ticket = TicketId::parse("5c0f6a0e-7f64-4c55-93a2-3f0a6f4d2b11").unwrap().key();
    let counter = CounterKey::new("account", "ada");
    match kind % 8 {
        0 | 1 => match in_time(server.look_up(&session, (kind % 8 == 1).then_some(TTL)).await) {
            Some(Some(held)) => assert!(says(reply, session.as_str(), &encoded(&held)), "{held:?}"),
            Some(None) => assert!(has(reply, &[NO_OP]), "a miss that the server has not sent"),
            None => {}
        },
        2 => match in_time(server.redeem_ticket(&ticket, TTL).await) {
            Some(Redemption::Won(value)) => {
                assert!(says(reply, ticket.as_str(), &[b"1 ", &value[..]].concat()) && has(reply, &["HD"]));
            }
            Some(Redemption::Replayed) => {
                assert!(says(reply, ticket.as_str(), b"used") || has(reply, &["NF", "NS", "EX"]))
            }
            Some(Redemption::Unknown) => {
                let bare = has(reply, &["EN", "NF", BARE, NO_OP]);
                assert!(bare, "a ticket that is not known to be unknown");
            }
            None => {}
        },
        3 => {
            if let Some(Count { count, .. }) = in_time(server.counter_incr(&counter, TTL).await) {
                assert!(has(reply, &["VA "]) && has(reply, &[&count.to_string()]), "{count}");
            }
        }
        4 => {
            let record = SessionRecord::decode(RECORD).unwrap();
            if let Some(added) = in_time(server.add(&session, &record, TTL).await) {
                assert!(has(reply, if added { &["HD", NO_OP] } else { &["NS", "EX", "NF"] }), "added: {added}");
            }
        }
        5 => {
            let tombstone = Tombstone { until: UnixTime::from_millis(1_763_843_200_000) };
            assert!(
                in_time(server.write_tombstone(&session, tombstone, TTL).await).is_none() || has(reply, &["HD", NO_OP])
            );
        }
        6 => assert!(in_time(server.counter_reset(&counter).await).is_none() || has(reply, &["HD", "NF", NO_OP])),
        _ => assert!(in_time(server.ping().await).is_none() || has(reply, &["\n"])),
    }
}

const RECORD: &[u8] = b"1 1763800000000 1763800001000 1800000 1763843200000 AAECAwQFBgcICQoLDA0ODw ada lovelace\n";

fuzz_target!(|data: &[u8]| {
    let Some((kind, reply)) = data.split_first() else { return };
    let world = world();
    *world.reply.lock().unwrap() = reply.to_vec();
    let settings = Settings { server: world.server.clone(), timeout: TIMEOUT, sign_on_timeout: TIMEOUT };
    world.runtime.block_on(async {
        let server = MemcachedServer::new(&settings, &world.metrics).unwrap();
        ask(*kind, reply, &server).await;
    });
});
