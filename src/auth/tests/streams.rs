//! Streams under watch: when one is asked for, what keeps its session and what ends it, with a clock that is pushed.

use tokio::sync::oneshot::Receiver;

use super::super::streams::{OpenStream, Stream, Terms};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A stream that is open at a bench.
struct Opened {
    bench: Bench,
    stream: OpenStream,
    signal: Receiver<()>,
}

fn terms(access: Access) -> Terms {
    Terms { service: "iqueue".into(), access, counts_as_activity: true }
}

async fn identity(bench: &Bench) -> Identity {
    let token = format!("{COOKIE}={}", bench.token(|_| {}));
    let demand = Demand {
        audience: "iqueue",
        service: Some("iqueue"),
        access: &Access::Required,
        credentials: Credentials { cookie: true, bearer: false },
        counts_as_activity: true,
        on_outage: OutagePolicy::TokenOnly,
    };
    match bench.guard.check(&headers(&[("cookie", &token)]), &demand, bench.clock.now()).await {
        Verdict::Known(identity) => identity,
        Verdict::Refused(reason) => panic!("{reason:?}"),
    }
}

async fn opened(bench: Bench, terms: Terms) -> Opened {
    let identity = identity(&bench).await;
    let (stream, signal) = bench.guard.watch(&identity, terms, 10).unwrap();
    Opened { bench, stream, signal }
}

impl Opened {
    async fn due(&self) -> Vec<Arc<Stream>> {
        self.bench.guard.sweep(self.bench.clock.now()).await
    }

    /// As `server` does on each tick, but one after the other.
    async fn tick(&self) -> usize {
        let due = self.due().await;
        for stream in &due {
            self.bench.guard.look_at(stream, self.bench.clock.now()).await;
        }
        // The recorder writes behind their backs, and is to do so before the clock is pushed.
        tokio::task::yield_now().await;
        due.len()
    }

    fn over(&self) -> Option<&'static str> {
        self.stream.over().map(Reason::label)
    }
}

fn state(change: impl FnOnce(&mut UserState)) -> UserState {
    let mut state = UserState {
        id: "u1".to_owned().into(),
        disabled: false,
        services: vec!["iqueue".into()],
        roles: vec!["clerk".into()],
        ended_before: UnixTime::default(),
        changed: UnixTime::from_seconds(1),
    };
    change(&mut state);
    state
}

#[tokio::test]
async fn a_stream_is_asked_for_at_once_and_then_once_in_an_interval() {
    let opened = opened(bench().with_session().await, terms(Access::Required)).await;
    assert_eq!(opened.tick().await, 1);
    assert_eq!(opened.tick().await, 0);
    opened.bench.clock.advance(Duration::from_secs(9));
    assert_eq!(opened.tick().await, 0);
    opened.bench.clock.advance(Duration::from_secs(1));
    assert_eq!(opened.tick().await, 1);
}

#[tokio::test]
async fn a_session_that_idles_out_soon_is_asked_for_sooner() {
    let bench = bench();
    let now = bench.clock.now();
    let short = bench.guard.tokens().verify(&bench.token(|claims| claims.idle = 6), now).unwrap();
    let long = bench.guard.tokens().verify(&bench.token(|_| {}), now).unwrap();
    let interval = |verified| {
        let identity = Identity::new(verified, Source::Cookie, Assurance::Session, None, now);
        bench.guard.stream_interval(&identity)
    };
    assert_eq!((interval(short), interval(long)), (Duration::from_secs(2), Duration::from_secs(10)));
}

#[tokio::test]
async fn bytes_keep_the_session_and_silence_does_not() {
    let opened = opened(bench().with_session().await, terms(Access::Required)).await;
    for _ in 0..3 {
        opened.stream.moved();
        opened.bench.clock.advance(9 * MINUTE);
        assert_eq!((opened.tick().await, opened.over()), (1, None));
    }
    opened.bench.clock.advance(9 * MINUTE);
    assert_eq!((opened.tick().await, opened.over()), (1, None));
    opened.bench.clock.advance(2 * MINUTE);
    assert_eq!((opened.tick().await, opened.over()), (1, Some("no_session")));
    opened.signal.await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_activity_keep_nothing() {
    let terms = Terms { counts_as_activity: false, ..terms(Access::Required) };
    let opened = opened(bench().with_session().await, terms).await;
    opened.stream.moved();
    opened.bench.clock.advance(9 * MINUTE);
    opened.tick().await;
    opened.stream.moved();
    opened.bench.clock.advance(2 * MINUTE);
    opened.tick().await;
    assert_eq!(opened.over(), Some("no_session"));
}

#[tokio::test]
async fn a_store_that_is_away_ends_nothing_and_is_asked_again_with_what_moved() {
    let clock = Clock::default();
    let opened = opened(bench_with(Arc::new(away::Away), clock), terms(Access::Required)).await;
    opened.stream.moved();
    for _ in 0..3 {
        assert_eq!((opened.tick().await, opened.over()), (1, None));
    }
    assert!(opened.due().await[0].take_activity(), "the slide is made up for when the store is back");
    opened.bench.clock.advance(HOUR);
    assert_eq!((opened.tick().await, opened.over()), (0, Some("expired")), "its token ends all the same");
}

#[tokio::test]
async fn a_session_that_became_another_users_is_none() {
    let opened = opened(bench().with_session().await, terms(Access::Required)).await;
    let id = SessionId::parse(&opened.bench.claims.sid).unwrap();
    let key = id.key();
    let Ok(Found::Lives(record)) = opened.bench.store.find(&key, None).await else { panic!("it lives") };
    opened.bench.store.insert(&key, &SessionRecord { user: "u2".into(), ..record }, HOUR).await.unwrap();
    opened.tick().await;
    assert_eq!(opened.over(), Some("no_session"));
}

#[tokio::test]
async fn a_logout_here_ends_the_streams_of_its_session_without_a_look() {
    let mut opened = opened(bench().with_session().await, terms(Access::Required)).await;
    opened.bench.guard.forget(&SessionId::random().unwrap().key());
    assert!(opened.signal.try_recv().is_err() && opened.over().is_none());
    opened.bench.guard.forget(&SessionId::parse(&opened.bench.claims.sid).unwrap().key());
    assert_eq!(opened.over(), Some("no_session"));
    opened.signal.try_recv().unwrap();
}

#[tokio::test]
async fn what_ends_a_stream_is_known_without_a_store() {
    let now = Clock::default().now();
    let opened = opened(bench().with_session().await, terms(Access::Roles(vec!["clerk".into()]))).await;
    let stream = opened.due().await.pop().unwrap();
    let why = |change: fn(&mut UserState)| stream.is_over(Some(&state(change)), now).map(|reason| reason.label());
    assert_eq!(why(|_| {}), None);
    assert_eq!(why(|state| state.disabled = true), Some("revoked"));
    assert_eq!(why(|state| state.ended_before = UnixTime::from_seconds(u64::MAX / 2000)), Some("revoked"));
    assert_eq!(why(|state| state.services = vec!["dextor".into()]), Some("not_registered"));
    assert_eq!(why(|state| state.roles = vec!["admin".into()]), Some("missing_role"));
    let end = UnixTime::from_seconds(opened.bench.claims.exp);
    let millisecond = Duration::from_millis(1);
    assert_eq!(stream.is_over(None, end.minus(millisecond)), None);
    assert_eq!(stream.is_over(None, end).map(|reason| reason.of_stream()), Some("expired"));
}

#[tokio::test]
async fn there_are_only_so_many_and_one_that_ends_makes_room() {
    let bench = bench().with_session().await;
    let identity = identity(&bench).await;
    let open = |most| bench.guard.watch(&identity, terms(Access::Required), most);
    let (first, second) = (open(2).unwrap(), open(2).unwrap());
    assert!(open(2).is_none());
    assert_eq!(bench.metrics.traffic.streams.get(), 2);
    drop(first);
    assert!(open(2).is_some());
    drop(second);
    assert_eq!(bench.metrics.traffic.streams.get(), 0);
    assert!(bench.guard.sweep(bench.clock.now()).await.is_empty(), "nothing is left behind");
}
