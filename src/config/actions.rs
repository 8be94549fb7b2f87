//! What becomes of the requests that a route admits: they are forwarded, redirected, answered or served files.

use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::defaults;
use crate::path::FilePath;

/// What a route does with a request that it admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The application answers it.
    Forward(Forward),
    Redirect(Redirect),
    Respond(FixedReply),
    Files(Files),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The name of the pool.
    pub pool: String,
    /// What the application's paths lack or have more than the client's.
    pub prefixes: Option<Prefixes>,
    /// Whether a `Location` of the application that a client could not follow is repaired.
    pub location_repair: bool,
}

/// How the application's paths differ from those of clients. Prefixes are spelled as requests spell them, and have no slash
/// at their end; an empty one is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Cut off, and the value of `X-Forwarded-Prefix`.
    pub strip: HeaderValue,
    /// Put before what is left.
    pub add: String,
}

impl Prefixes {
    /// Returns what is cut off.
    pub fn stripped(&self) -> &str {
        self.strip.to_str().unwrap_or_default()
    }
}

/// Where a browser is sent. The target is split at its query, because more may be added before and behind that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub status: StatusCode,
    /// A path, or an absolute https URL, as it is written in a header field; without query and fragment.
    pub to: String,
    pub query: Option<String>,
    pub fragment: Option<String>,
    /// The path of the route as requests spell it. What follows it is added to the target; `None` where it is not.
    pub keep_path: Option<String>,
    /// Whether the query of the request is added.
    pub keep_query: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedReply {
    pub status: StatusCode,
    pub body: Bytes,
    /// `None` where there is no body and no type was named.
    pub content_type: Option<HeaderValue>,
}

/// Static files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The folder that they are in.
    pub root: PathBuf,
    /// The name of the file that a folder stands for.
    pub index: String,
    /// The file for navigations to what does not exist.
    pub fallback: Option<FilePath>,
    /// The value of `Cache-Control`, where it is not the default.
    pub cache_control: Option<HeaderValue>,
}

/// What requests receive whose host no service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownHosts {
    Status(StatusCode),
    /// An absolute https URL.
    Redirect(String),
}

impl Forward {
    /// To a pool, as every request is forwarded of which nothing more is said.
    pub fn to(pool: &str) -> Self {
        Self { pool: pool.into(), prefixes: None, location_repair: defaults::LOCATION_REPAIR }
    }
}

impl Action {
    /// Returns the name of the pool that requests are forwarded to, if they are.
    pub fn pool(&self) -> Option<&str> {
        self.forward().map(|forward| forward.pool.as_str())
    }

    /// Returns how requests are forwarded, if they are.
    pub fn forward(&self) -> Option<&Forward> {
        match self {
            Self::Forward(forward) => Some(forward),
            Self::Redirect(_) | Self::Respond(_) | Self::Files(_) => None,
        }
    }

    /// Whether the configuration has the whole response.
    pub fn is_answer_of_edge(&self) -> bool {
        matches!(self, Self::Redirect(_) | Self::Respond(_))
    }
}

impl FixedReply {
    /// Whether a reply of this status has no body, whatever was written (RFC 9110 §15.3.5, §15.3.6 and §15.4.5).
    pub fn is_bodiless(status: StatusCode) -> bool {
        [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
    }
}
