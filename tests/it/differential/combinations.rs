//! What the cases are drawn from: every status class × framing × break point × method × protocol, walked through in turn
//! rather than left to chance. Which combination a case is of depends on its seed alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::harness::observer::Protocol;

/// Of the application's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// One to three of 100, 102 and 103, and a final response.
    Interim,
    /// 101 that was not asked for.
    Switching,
    Success,
    NoContent,
    Partial,
    Redirect,
    NotModified,
    ClientError,
    ServerError,
    /// None of an application's: the edge itself replies.
    OfTheEdge,
}

/// How the response says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    NoBody,
    Length,
    /// Too long, too short, or no number.
    LengthWrong,
    LengthTwice,
    Chunked,
    ChunkedBad,
    ChunkedTrailers,
    /// Transfer codings that are more, or other, than one `chunked`.
    Codings,
    CloseDelimited,
    Http10,
}

/// Where the application's side of the connection breaks off, or else what comes when it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Break {
    Nowhere,
    BeforeHead,
    InHead,
    AfterHead,
    InBody,
    /// The response is whole, and the connection ends without having said so.
    AtEnd,
    /// Bytes follow that are of no response.
    AfterResponse,
    /// The response comes before the request's body.
    EarlyResponse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Combination {
    pub protocol: Protocol,
    pub method: &'static str,
    pub status: Status,
    pub framing: Framing,
    pub breaks: Break,
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Http11, Protocol::Http2, Protocol::Http10];
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "DELETE", "OPTIONS"];
const STATUSES: [Status; 9] = [
    Status::Interim,
    Status::Switching,
    Status::Success,
    Status::NoContent,
    Status::Partial,
    Status::Redirect,
    Status::NotModified,
    Status::ClientError,
    Status::ServerError,
];
const FRAMINGS: [Framing; 10] = [
    Framing::NoBody,
    Framing::Length,
    Framing::LengthWrong,
    Framing::LengthTwice,
    Framing::Chunked,
    Framing::ChunkedBad,
    Framing::ChunkedTrailers,
    Framing::Codings,
    Framing::CloseDelimited,
    Framing::Http10,
];
const BREAKS: [Break; 8] = [
    Break::Nowhere,
    Break::BeforeHead,
    Break::InHead,
    Break::AfterHead,
    Break::InBody,
    Break::AtEnd,
    Break::AfterResponse,
    Break::EarlyResponse,
];

/// Larger than any number of combinations, and a prime: neighbouring seeds are of combinations far from each other.
const STRIDE: u64 = 1_000_003;
/// Of so many cases one is of a break point, each as often as the next: there are few combinations before a head. Two are
/// of those that the fast path reads by itself, of which there are few too, and all others walk.
const ROUND: u64 = 8;
const ORDINARY: u64 = 2;
const WALKING: u64 = ROUND - 1 - ORDINARY;

static ALL: LazyLock<Vec<Combination>> = LazyLock::new(all);
static OF_THE_FAST_PATH: LazyLock<Vec<Combination>> =
    LazyLock::new(|| ALL.iter().filter(|one| one.is_ordinary()).copied().collect());
static BY_BREAK: LazyLock<Vec<Vec<Combination>>> = LazyLock::new(|| {
    let of = |breaks: &Break| ALL.iter().filter(|one| one.breaks == *breaks).copied().collect();
    BREAKS.iter().map(of).collect()
});

impl Combination {
    /// That of a case.
    pub fn of(seed: u64) -> Self {
        let at =
            |turn: u64, of: &[Self]| of[usize::try_from(turn % of.len() as u64 * STRIDE % of.len() as u64).unwrap()];
        let (round, place) = (seed / ROUND, seed % ROUND);
        match place {
            0 => {
                let breaks = &BY_BREAK[usize::try_from(round % BREAKS.len() as u64).unwrap()];
                at(round / BREAKS.len() as u64, breaks)
            }
            1..=ORDINARY => at(round * ORDINARY + place - 1, &OF_THE_FAST_PATH),
            _ => at(round * WALKING + place - 1 - ORDINARY, &ALL),
        }
    }

    /// Whether request and response may both be such that no library reads them on the fast path.
    fn is_ordinary(&self) -> bool {
        let says_length = [Framing::NoBody, Framing::Length].contains(&self.framing);
        let is_final = ![Status::Interim, Status::Switching].contains(&self.status);
        self.protocol != Protocol::Http10
            && ["GET", "HEAD"].contains(&self.method)
            && [Break::Nowhere, Break::AfterResponse].contains(&self.breaks)
            && says_length
            && is_final
    }

    /// Whether there is a body that something could break off in.
    pub fn has_body(&self) -> bool {
        let is_bodiless = [Status::Switching, Status::NoContent, Status::NotModified].contains(&self.status);
        self.method != "HEAD" && !is_bodiless && self.framing != Framing::NoBody
    }

    /// Whether there is such a thing, as something else than another one.
    fn exists(&self) -> bool {
        let is_first = self.framing == FRAMINGS[0];
        match self.breaks {
            _ if self.status == Status::OfTheEdge => self.breaks == Break::Nowhere && is_first,
            // Of a response that does not come nothing else can be told.
            Break::BeforeHead => self.status == Status::Success && is_first,
            Break::InHead => is_first,
            Break::AfterHead | Break::InBody => self.has_body(),
            Break::Nowhere | Break::AtEnd | Break::AfterResponse | Break::EarlyResponse => true,
        }
    }
}

fn all() -> Vec<Combination> {
    let mut all = Vec::new();
    for protocol in PROTOCOLS {
        for method in METHODS {
            for status in STATUSES.into_iter().chain([Status::OfTheEdge]) {
                for framing in FRAMINGS {
                    for breaks in BREAKS {
                        all.push(Combination { protocol, method, status, framing, breaks });
                    }
                }
            }
        }
    }
    all.retain(Combination::exists);
    all
}

/// How many cases of each combination there were.
pub struct Coverage(HashMap<Combination, u64>);

impl Coverage {
    pub fn of(seeds: impl Iterator<Item = u64>) -> Self {
        let mut counts: HashMap<_, _> = ALL.iter().map(|one| (*one, 0)).collect();
        for seed in seeds {
            *counts.get_mut(&Combination::of(seed)).unwrap() += 1;
        }
        Self(counts)
    }

    /// Of the combination that had the fewest.
    pub fn least(&self) -> u64 {
        self.0.values().copied().min().unwrap_or_default()
    }

    /// For each value of each part: its combinations, the fewest cases that one of them had, and all of their cases.
    pub fn table(&self) -> String {
        let mut rows: BTreeMap<(usize, String), (u64, u64, u64)> = BTreeMap::new();
        for (one, cases) in &self.0 {
            let Combination { protocol, method, status, framing, breaks } = one;
            let parts = [
                format!("protocol {protocol:?}"),
                format!("method {method}"),
                format!("status {status:?}"),
                format!("framing {framing:?}"),
                format!("break {breaks:?}"),
            ];
            for key in parts.into_iter().enumerate() {
                let row = rows.entry(key).or_insert((0, u64::MAX, 0));
                *row = (row.0 + 1, row.1.min(*cases), row.2 + cases);
            }
        }
        let mut table = format!("{:28}{:>14}{:>16}{:>10}\n", "", "combinations", "fewest of one", "cases");
        for ((_, name), (combinations, least, cases)) in rows {
            writeln!(table, "{name:28}{combinations:>14}{least:>16}{cases:>10}").unwrap();
        }
        table
    }
}

/// The cases after which each combination has had so many.
pub fn cases_for(each: u64) -> u64 {
    (ALL.len() as u64 * each).div_ceil(WALKING) * ROUND
}

#[test]
fn a_long_run_has_200_cases_of_each_combination() {
    let cases = cases_for(200);
    for first in [0, 1, 123_456_789] {
        let coverage = Coverage::of(first..first + cases + ROUND);
        assert!(coverage.least() >= 200, "{} of {cases}\n{}", coverage.least(), coverage.table());
    }
}
