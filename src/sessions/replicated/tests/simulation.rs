//! Simulated servers that a test can cut off from an edge, empty and slow down, in an order that a seed draws.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::UnixTime;
use crate::sessions::replicated::node::{self, Node, ScanPage, StoredResult};
use crate::sessions::{
    Count, CounterKey, DeviceKey, DeviceRecord, Redemption, SessionKey, SessionRecord, StoreError, StoredValue, Swap,
    TicketKey, Tombstone,
};

/// The state of all servers, and which edge reaches which of them.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    servers: Vec<Contents>,
    /// Whether the connection is cut, by edge and server.
    cut: Vec<Vec<bool>>,
    /// How many of a hundred exchanges time out. Such a request may still be executed, later.
    late_percent: u8,
    /// Sessions that were written over a tombstone, which must never happen.
    pub risen: Vec<String>,
}

#[derive(Default)]
struct Contents {
    items: HashMap<String, Item>,
    tickets: HashMap<String, Option<Vec<u8>>>,
    counters: HashMap<String, u64>,
    devices: HashMap<DeviceKey, DeviceRecord>,
    next_cas: u64,
}

#[derive(Clone)]
struct Item {
    held: StoredValue,
    cas: u64,
}

/// One edge's connection to a server.
#[derive(Clone)]
pub struct Simulated {
    world: World,
    edge: usize,
    server: usize,
}

impl World {
    pub fn new(seed: u64, edges: usize, servers: usize, late_percent: u8) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            servers: (0..servers).map(|_| Contents::default()).collect(),
            cut: vec![vec![false; servers]; edges],
            late_percent,
            risen: Vec::new(),
        })))
    }

    pub fn node(&self, edge: usize, server: usize) -> Simulated {
        Simulated { world: self.clone(), edge, server }
    }

    pub fn draw(&self, below: usize) -> usize {
        self.with(|state| state.random.usize(..below))
    }

    pub fn cut(&self, edge: usize, server: usize, cut: bool) {
        self.with(|state| state.cut[edge][server] = cut);
    }

    /// Sets how many of a hundred exchanges time out, and returns the value before.
    pub fn late(&self, percent: u8) -> u8 {
        self.with(|state| std::mem::replace(&mut state.late_percent, percent))
    }

    pub fn heal(&self) {
        self.with(|state| {
            state.late_percent = 0;
            state.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        });
    }

    pub fn empty(&self, server: usize) {
        // The CAS numbers continue, so a number from before the restart is refused, as `memcached::codec` refuses it.
        self.with(|state| {
            let next_cas = state.servers[server].next_cas;
            state.servers[server] = Contents { next_cas, ..Contents::default() };
        });
    }

    /// Whether a server that `edge` can reach has the tombstone.
    pub fn knows(&self, edge: usize, key: &SessionKey) -> bool {
        self.with(|state| {
            let reached = state.servers.iter().zip(&state.cut[edge]).filter(|(_, cut)| !**cut);
            let mut items = reached.filter_map(|(server, _)| server.items.get(key.as_str()));
            items.any(|item| matches!(item.held, StoredValue::Ended(_)))
        })
    }

    pub fn held(&self, server: usize, key: &SessionKey) -> Option<StoredValue> {
        self.with(|state| state.servers[server].items.get(key.as_str()).map(|item| item.held.clone()))
    }

    pub fn risen(&self) -> Vec<String> {
        self.with(|state| state.risen.clone())
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

impl State {
    fn put(&mut self, server: usize, key: &str, held: StoredValue) {
        let contents = &mut self.servers[server];
        contents.next_cas += 1;
        let before = contents.items.insert(key.to_owned(), Item { held: held.clone(), cas: contents.next_cas });
        if let (Some(Item { held: StoredValue::Ended(_), .. }), StoredValue::Session(_)) = (before, held) {
            self.risen.push(key.to_owned());
        }
    }
}

impl Simulated {
    /// One round trip: it takes some turns of the runtime, may not arrive, and may be answered too late.
    async fn exchange<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut State, usize) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (world, edge, server) = (self.world.clone(), self.edge, self.server);
        let steps = world.draw(4);
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        let (cut, late) = world.with(|state| (state.cut[edge][server], state.random.u8(..100) < state.late_percent));
        if cut {
            return Err(StoreError::Unavailable { cause: "cut off".into() });
        }
        if late {
            let (arrives, steps) = (world.draw(2) == 0, world.draw(40));
            tokio::spawn(async move {
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                }
                if arrives {
                    world.with(|state| act(state, server));
                }
            });
            return Err(StoreError::TimedOut);
        }
        Ok(world.with(|state| act(state, server)))
    }
}

impl Node for Simulated {
    type Scan = KeyScan;

    async fn look_up(&self, key: &SessionKey, _slide: Option<Duration>) -> Result<Option<StoredValue>, StoreError> {
        let key = key.as_str().to_owned();
        self.exchange(move |state, server| state.servers[server].items.get(&key).map(|item| item.held.clone())).await
    }

    async fn add(&self, key: &SessionKey, record: &SessionRecord, _ttl: Duration) -> Result<bool, StoreError> {
        let (key, record) = (key.as_str().to_owned(), record.clone());
        self.exchange(move |state, server| {
            let free = !state.servers[server].items.contains_key(&key);
            if free {
                state.put(server, &key, StoredValue::Session(record));
            }
            free
        })
        .await
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, _ttl: Duration) -> Result<bool, StoreError> {
        let key = key.as_str().to_owned();
        let read_key = key.clone();
        let item = self.exchange(move |state, server| state.servers[server].items.get(&read_key).cloned()).await?;
        let Some(Item { held: StoredValue::Session(mut record), cas }) = item else { return Ok(false) };
        if record.last_accessed >= now {
            return Ok(false);
        }
        record.last_accessed = now;
        self.exchange(move |state, server| {
            let unchanged = state.servers[server].items.get(&key).is_some_and(|item| item.cas == cas);
            if unchanged {
                state.put(server, &key, StoredValue::Session(record));
            }
            unchanged
        })
        .await
    }

    async fn write_tombstone(&self, key: &SessionKey, tombstone: Tombstone, _ttl: Duration) -> Result<(), StoreError> {
        let key = key.as_str().to_owned();
        self.exchange(move |state, server| state.put(server, &key, StoredValue::Ended(tombstone))).await
    }

    async fn renew(&self, key: &SessionKey, record: &SessionRecord, _ttl: Duration) -> Result<bool, StoreError> {
        let (key, record) = (key.as_str().to_owned(), record.clone());
        self.exchange(move |state, server| {
            let held = state.servers[server].items.get(&key).map(|item| &item.held);
            let is_active = matches!(held, Some(StoredValue::Session(_)));
            if is_active {
                state.put(server, &key, StoredValue::Session(record));
            }
            is_active
        })
        .await
    }

    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let key = key.clone();
        self.exchange(move |state, server| state.servers[server].devices.get(&key).cloned()).await
    }

    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        _ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let (key, seen, next) = (key.clone(), seen.cloned(), next.clone());
        self.exchange(move |state, server| {
            let devices = &mut state.servers[server].devices;
            if devices.get(&key) != seen.as_ref() {
                return Swap::Found(devices.get(&key).cloned());
            }
            devices.insert(key, next);
            Swap::Done
        })
        .await
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], _ttl: Duration) -> Result<(), StoreError> {
        let (key, value) = (key.as_str().to_owned(), value.to_vec());
        self.exchange(move |state, server| drop(state.servers[server].tickets.insert(key, Some(value)))).await
    }

    async fn redeem_ticket(&self, key: &TicketKey, _remember: Duration) -> Result<Redemption, StoreError> {
        let key = key.as_str().to_owned();
        self.exchange(move |state, server| match state.servers[server].tickets.get_mut(&key) {
            None => Redemption::Unknown,
            Some(ticket) => ticket.take().map_or(Redemption::Replayed, Redemption::Won),
        })
        .await
    }

    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let key = key.as_str().to_owned();
        self.exchange(move |state, server| {
            let count = state.servers[server].counters.entry(key).or_default();
            *count += 1;
            Count { count: *count, left: window, server: None }
        })
        .await
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let key = key.as_str().to_owned();
        self.exchange(move |state, server| {
            let count = state.servers[server].counters.get(&key).copied().unwrap_or_default();
            Count { count, ..Count::default() }
        })
        .await
    }

    async fn counter_decr(&self, key: &CounterKey) -> Result<(), StoreError> {
        let key = key.as_str().to_owned();
        self.exchange(move |state, server| {
            if let Some(count) = state.servers[server].counters.get_mut(&key) {
                *count = count.saturating_sub(1);
            }
        })
        .await
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        let key = key.as_str().to_owned();
        self.exchange(move |state, server| {
            state.servers[server].counters.remove(&key);
        })
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.exchange(|_, _| ()).await
    }

    fn unavailable_for(&self) -> Duration {
        Duration::ZERO
    }

    fn is_failing(&self) -> bool {
        self.world.with(|state| state.cut[self.edge][self.server])
    }

    /// The breaker never opens, so that each look-up that fails is sent once more.
    fn is_open(&self) -> bool {
        false
    }

    fn scan_keys(&self) -> KeyScan {
        KeyScan { server: self.clone(), after: String::new() }
    }
}

/// Lists the keys in their order, three per page.
pub struct KeyScan {
    server: Simulated,
    after: String,
}

impl node::KeyScan for KeyScan {
    async fn keys(&mut self) -> Result<Option<ScanPage>, StoreError> {
        let after = self.after.clone();
        let page = self.server.exchange(move |state, server| {
            let keys = state.servers[server].items.keys().filter(|key| **key > after);
            let mut keys: Vec<String> = keys.cloned().collect();
            keys.sort();
            keys.truncate(3);
            keys
        });
        let page = page.await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after.clone_from(last);
        Ok(Some(page.iter().filter_map(|key| SessionKey::parse(key)).map(|key| (key, UnixTime::default())).collect()))
    }

    async fn look_up(&mut self, keys: &[SessionKey]) -> Result<Vec<StoredResult>, StoreError> {
        let keys = keys.to_vec();
        let results = self.server.exchange(move |state, server| {
            let held = |key: &SessionKey| state.servers[server].items.get(key.as_str()).map(|item| item.held.clone());
            keys.iter().map(|key| Ok(held(key))).collect()
        });
        results.await
    }
}
