//! Streams while they are open: when a session is looked up, what extends it and what ends it, with a clock that the
//! test advances.

use tokio::sync::oneshot::Receiver;

use super::super::streams::{Admission, EndReason, NewStream, OpenStream, Stream, StreamsFull, Terms};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// An open stream of a bench.
struct Opened {
    bench: Bench,
    stream: OpenStream,
    signal: Receiver<()>,
}

fn terms(access: Access) -> Terms {
    Terms { service: "iqueue".into(), access, extends_session: true, certificate: None }
}

/// What every configuration after the first decides for a stream.
struct Fixed(Result<Terms, EndReason>);

impl Admission for Fixed {
    fn recheck(&self, _now: UnixTime) -> Result<(u64, Terms), EndReason> {
        self.0.clone().map(|terms| (1, terms))
    }
}

fn opening(terms: Terms, most: usize) -> NewStream {
    NewStream { admission: Box::new(Fixed(Ok(terms.clone()))), terms, generation: 0, most }
}

async fn identity(bench: &Bench) -> Identity {
    let token = format!("{COOKIE}={}", bench.token(|_| {}));
    let requirement = Requirement {
        audience: "iqueue",
        service: Some("iqueue"),
        access: &Access::Required,
        credentials: Credentials { cookie: true, bearer: false },
        extends_session: true,
        on_outage: OutagePolicy::TokenOnly,
    };
    match bench.guard.check(&headers(&[("cookie", &token)]), &requirement, bench.clock.now()).await.verdict {
        Verdict::Allowed(identity) => identity,
        Verdict::Refused(reason) => panic!("{reason:?}"),
    }
}

async fn opened(bench: Bench, terms: Terms) -> Opened {
    opened_so(bench, opening(terms, 10)).await
}

async fn opened_so(bench: Bench, opening: NewStream) -> Opened {
    let identity = identity(&bench).await;
    let (stream, signal) = bench.guard.register_stream(&identity, opening).ok().unwrap();
    Opened { bench, stream, signal }
}

impl Opened {
    async fn due(&self) -> Vec<Arc<Stream>> {
        self.bench.guard.sweep(0, self.bench.clock.now()).await.due
    }

    /// As `server` does on each tick, but one after the other.
    async fn tick(&self) -> usize {
        let due = self.due().await;
        for stream in &due {
            self.bench.guard.check_session(stream, self.bench.clock.now()).await;
        }
        // The recorder writes behind their backs, and is to do so before the clock is pushed.
        tokio::task::yield_now().await;
        due.len()
    }

    fn over(&self) -> Option<&'static str> {
        self.stream.end_reason().map(EndReason::label)
    }
}

fn state(change: impl FnOnce(&mut UserState)) -> UserState {
    let mut state = UserState {
        id: "u1".to_owned().into(),
        disabled: false,
        services: vec!["iqueue".into()],
        roles: vec!["clerk".into()],
        ended_before: UnixTime::default(),
        ended_by: 0,
        ended_formerly: UnixTime::default(),
        change: 1,
    };
    change(&mut state);
    state
}

#[tokio::test]
async fn a_streams_session_is_looked_up_at_once_and_then_once_in_an_interval() {
    let opened = opened(bench().with_session().await, terms(Access::Required)).await;
    assert_eq!(opened.tick().await, 1);
    assert_eq!(opened.tick().await, 0);
    opened.bench.clock.advance(Duration::from_secs(9));
    assert_eq!(opened.tick().await, 0);
    opened.bench.clock.advance(Duration::from_secs(1));
    assert_eq!(opened.tick().await, 1);
}

#[tokio::test]
async fn a_session_with_a_short_idle_timeout_is_looked_up_more_often() {
    let bench = bench();
    let now = bench.clock.now();
    let short = bench.guard.tokens().verify(&bench.token(|claims| claims.idle = 6), now).unwrap();
    let long = bench.guard.tokens().verify(&bench.token(|_| {}), now).unwrap();
    let interval = |verified| {
        let identity = Identity::new(verified, Source::Cookie, Assurance::Session, None);
        bench.guard.stream_interval(&identity)
    };
    assert_eq!((interval(short), interval(long)), (Duration::from_secs(2), Duration::from_secs(10)));
}

#[tokio::test]
async fn bytes_keep_the_session_and_silence_does_not() {
    let opened = opened(bench().with_session().await, terms(Access::Required)).await;
    for _ in 0..3 {
        opened.stream.note_activity();
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
    let terms = Terms { extends_session: false, ..terms(Access::Required) };
    let opened = opened(bench().with_session().await, terms).await;
    opened.stream.note_activity();
    opened.bench.clock.advance(9 * MINUTE);
    opened.tick().await;
    opened.stream.note_activity();
    opened.bench.clock.advance(2 * MINUTE);
    opened.tick().await;
    assert_eq!(opened.over(), Some("no_session"));
}

#[tokio::test]
async fn an_unavailable_store_ends_no_stream_and_the_activity_is_sent_to_it_later() {
    let clock = Clock::default();
    let opened = opened(bench_with(Arc::new(away::Unavailable), clock), terms(Access::Required)).await;
    opened.stream.note_activity();
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
    let Ok(Found::Active(record)) = opened.bench.store.find(&key, None).await else { panic!("it lives") };
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
    let why = |change: fn(&mut UserState)| stream.end_reason(Some(&state(change)), now).map(|over| over.label());
    assert_eq!(why(|_| {}), None);
    assert_eq!(why(|state| state.disabled = true), Some("revoked"));
    assert_eq!(why(|state| state.ended_by = 1), Some("revoked"));
    assert_eq!(why(|state| state.services = vec!["dextor".into()]), Some("not_registered"));
    assert_eq!(why(|state| state.roles = vec!["admin".into()]), Some("missing_role"));
    let end = UnixTime::from_seconds(opened.bench.claims.exp);
    let millisecond = Duration::from_millis(1);
    assert_eq!(stream.end_reason(None, end.minus(millisecond)), None);
    assert_eq!(stream.end_reason(None, end).map(|over| over.kind()), Some("expired"));
}

#[tokio::test]
async fn there_are_only_so_many_and_one_that_ends_makes_room() {
    let bench = bench().with_session().await;
    let identity = identity(&bench).await;
    // A quarter of a table is a session's share.
    let open = |most| bench.guard.register_stream(&identity, opening(terms(Access::Required), most));
    let (first, second) = (open(8).ok().unwrap(), open(8).ok().unwrap());
    assert_eq!((open(8).err(), open(2).err()), (Some(StreamsFull::Share), Some(StreamsFull::Total)));
    assert_eq!(bench.metrics.traffic.streams.get(), 2);
    drop(first);
    assert!(open(8).is_ok());
    drop(second);
    assert_eq!(bench.metrics.traffic.streams.get(), 0);
    assert!(bench.guard.sweep(0, bench.clock.now()).await.due.is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn a_user_has_a_share_however_many_sessions_and_others_have_theirs() {
    let bench = bench().with_session().await;
    let now = bench.clock.now();
    let identity = |sub: &str| {
        let sid = SessionId::random().unwrap().as_str().to_owned();
        let token = bench.token(|claims| (claims.sub, claims.sid) = (sub.into(), sid));
        Identity::new(bench.guard.tokens().verify(&token, now).unwrap(), Source::Cookie, Assurance::Session, None)
    };
    let open = |sub: &str| bench.guard.register_stream(&identity(sub), opening(terms(Access::Required), 100));
    let of_one: Vec<_> = (0..50).map(|_| open("u1").ok().unwrap()).collect();
    assert_eq!(open("u1").err(), Some(StreamsFull::Share));
    assert!(open("u2").is_ok());
    drop(of_one);
    assert!(open("u1").is_ok());
}

#[tokio::test]
async fn a_stream_is_checked_once_against_a_new_configuration_whose_terms_then_apply() {
    let (before, after) = (terms(Access::Required), terms(Access::Roles(vec!["admin".into()])));
    let opening = NewStream { admission: Box::new(Fixed(Ok(after))), ..opening(before, 10) };
    let opened = opened_so(bench().with_session().await, opening).await;
    let (guard, clock) = (&opened.bench.guard, &opened.bench.clock);
    assert!(guard.sweep(0, clock.now()).await.stale.is_empty());
    let swept = guard.sweep(1, clock.now()).await;
    assert_eq!(swept.stale.len(), 1);
    stream_check::recheck(swept.stale, clock).await;
    assert_eq!(opened.over(), None);
    let swept = guard.sweep(1, clock.now()).await;
    assert!(swept.stale.is_empty());
    let why = swept.due[0].end_reason(Some(&state(|_| {})), clock.now()).map(|over| over.label());
    assert_eq!(why, Some("missing_role"));
}

#[tokio::test]
async fn what_a_new_configuration_does_not_let_in_is_cut() {
    for over in [
        EndReason::Rerouted,
        EndReason::Connection,
        EndReason::CertificateEnded,
        EndReason::Refused(Reason::MissingRole),
    ] {
        let opening =
            NewStream { admission: Box::new(Fixed(Err(over.clone()))), ..opening(terms(Access::Required), 10) };
        let mut opened = opened_so(bench().with_session().await, opening).await;
        let swept = opened.bench.guard.sweep(1, opened.bench.clock.now()).await;
        stream_check::recheck(swept.stale, &opened.bench.clock).await;
        assert_eq!(opened.stream.end_reason(), Some(&over));
        opened.signal.try_recv().unwrap();
    }
}
