//! Static files: which file a request gets, in which form, and how much of it. Called by `proxy`.
//!
//! A look at the file system may wait for ever, so it is made on threads of its own ([`blocking`](crate::blocking)), whole:
//! from opening the root to reading the first piece. What decides is pure: `precondition` and `range` what of the file the
//! client needs, `coding` which variant it takes. A [`FilePath`] names nothing outside of the root or hidden.

mod body;
mod cache_control;
mod check;
mod coding;
mod content_type;
mod find;
mod precondition;
mod range;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::blocking::{BlockingThreads, Lane, NoResult};
use crate::clock::UnixTime;
use crate::config;
use crate::path::FilePath;
use crate::request::PAGE_FIELDS;
pub use body::{FileBody, ReadError};
use body::{READ_TIMEOUT, Stamp};
use cache_control::CacheControl;
pub use check::check_roots;
use coding::{Coding, Preference};
use content_type::content_type;
use find::{Found, Root};
use precondition::{Conditions, Outcome, Validators};
use range::Wanted;

/// How often a file is looked up again that changes while it is looked at.
const ATTEMPTS: usize = 3;

/// The files of a route.
pub struct StaticFiles {
    settings: Arc<Settings>,
    lane: Lane,
}

struct Settings {
    root: Box<Path>,
    index: String,
    fallback: Option<FilePath>,
    cache_control: CacheControl,
}

/// A request for a file.
pub struct FileRequest {
    /// `None` where its path can name none.
    pub path: Option<FilePath>,
    /// A GET; otherwise it is a HEAD.
    is_get: bool,
    /// Whether a page is wanted that an application of a single page shows for any path of its own.
    takes_fallback: bool,
    conditions: Conditions,
    range: Option<HeaderValue>,
    preference: Preference,
    now: UnixTime,
}

/// What a request for a file comes to.
pub enum FileReply {
    Response(FileResponse),
    /// It is a folder, and its path lacks the slash at the end that links of its index count on.
    AddSlash,
    Missing,
    /// It is there, and may not be read.
    Unreadable,
    /// `412`
    PreconditionFailed,
    /// `416`, with the length of the file.
    RangeNotSatisfiable(u64),
    Failed(ReadError),
}

/// `200`, `206` or `304`.
pub struct FileResponse {
    pub status: StatusCode,
    /// All fields but those of the connection and of the edge.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// `None` where nothing follows the head.
    pub body: Option<FileBody>,
}

impl FileRequest {
    /// `takes_fallback`: the response is shown as a page of its own.
    pub fn new(
        method: &Method,
        headers: &HeaderMap,
        path: Option<FilePath>,
        takes_fallback: bool,
        now: UnixTime,
    ) -> Self {
        let is_get = *method == Method::GET;
        Self {
            path,
            is_get,
            takes_fallback,
            conditions: Conditions::of(headers),
            // RFC 9110 §14.2: for a GET alone.
            range: precondition::one(headers, &header::RANGE).filter(|_| is_get),
            preference: Preference::of(headers),
            now,
        }
    }
}

impl StaticFiles {
    /// `is_public`: without a sign-on, so that shared caches may keep what is sent.
    pub fn new(config: &config::Files, is_public: bool, threads: &Arc<BlockingThreads>) -> Self {
        let settings = Settings {
            root: config.root.as_path().into(),
            index: config.index.clone(),
            fallback: config.fallback.clone(),
            cache_control: CacheControl::new(config.cache_control.as_ref(), is_public),
        };
        Self { lane: threads.lane(&config.root), settings: Arc::new(settings) }
    }

    /// The name of the file that a path with a slash at its end stands for.
    pub fn index(&self) -> &str {
        &self.settings.index
    }

    /// The file that is sent in the place of one that does not exist.
    pub fn fallback(&self) -> Option<&FilePath> {
        self.settings.fallback.as_ref()
    }

    /// Looks for a request's file. The file system has `READ_TIMEOUT` for it.
    pub async fn reply(&self, request: FileRequest) -> FileReply {
        let (settings, lane) = (Arc::clone(&self.settings), self.lane.clone());
        let looked = self.lane.run(READ_TIMEOUT, move || look_up(&settings, &request, &lane)).await;
        looked.unwrap_or_else(|no_result: NoResult| FileReply::Failed(ReadError::NoResult(no_result)))
    }
}

fn look_up(settings: &Settings, request: &FileRequest, lane: &Lane) -> FileReply {
    lane.make_room();
    let mut reply = FileReply::Missing;
    for _ in 0..ATTEMPTS {
        reply = try_look_up(settings, request, lane).unwrap_or_else(failed);
        if !matches!(reply, FileReply::Failed(ReadError::Changed)) {
            break;
        }
    }
    reply
}

fn failed(error: io::Error) -> FileReply {
    match error.kind() {
        io::ErrorKind::PermissionDenied => FileReply::Unreadable,
        _ => FileReply::Failed(ReadError::Failed(error)),
    }
}

fn try_look_up(settings: &Settings, request: &FileRequest, lane: &Lane) -> io::Result<FileReply> {
    let root = match Root::open(&settings.root) {
        // It may be about to be put in place of another.
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(FileReply::Missing);
        }
        root => root?,
    };
    let located = match &request.path {
        Some(path) => locate(&root, path, &settings.index)?,
        None => Located::Nothing,
    };
    let (name, file, is_fallback) = match (located, &settings.fallback) {
        (Located::File(name, file), _) => (name, file, false),
        (Located::Folder, _) => return Ok(FileReply::AddSlash),
        (Located::Nothing, Some(fallback)) if request.takes_fallback => match root.find(fallback.as_bytes())? {
            Found::File(file) => (fallback.as_bytes().to_vec(), file, true),
            Found::Folder | Found::Nothing => return Ok(FileReply::Missing),
        },
        (Located::Nothing, _) => return Ok(FileReply::Missing),
    };
    let representation = Representation::choose(&root, name, file, request)?;
    Ok(Representation { is_fallback, ..representation }.reply(settings, request, lane))
}

enum Located {
    /// With its path below the root.
    File(Vec<u8>, File),
    /// Whose path lacks the slash.
    Folder,
    Nothing,
}

fn locate(root: &Root, path: &FilePath, index: &str) -> io::Result<Located> {
    let name = if path.names_folder() { path.join(index) } else { path.as_bytes().to_vec() };
    Ok(match root.find(&name)? {
        Found::File(file) => Located::File(name, file),
        Found::Folder if !path.names_folder() => Located::Folder,
        Found::Folder | Found::Nothing => Located::Nothing,
    })
}

/// The variant of a file that a client gets.
struct Representation {
    file: File,
    stamp: Stamp,
    coding: Coding,
    /// Whether it is sent in the place of a file that does not exist.
    is_fallback: bool,
    /// Whether another client might get another variant.
    varies: bool,
    content_type: HeaderValue,
}

impl Representation {
    fn choose(root: &Root, name: Vec<u8>, file: File, request: &FileRequest) -> io::Result<Self> {
        let content_type = content_type(Path::new(OsStr::from_bytes(&name)));
        let mut variants = Vec::new();
        for coding in Coding::COMPRESSED {
            let name = [&name, coding.extension().as_bytes()].concat();
            // A variant that cannot be read is as good as none.
            if let Ok(Found::File(file)) = root.find(&name) {
                variants.push((coding, file));
            }
        }
        let available: Vec<Coding> = variants.iter().map(|(coding, _)| *coding).collect();
        let coding = request.preference.best(&available);
        let varies = !variants.is_empty();
        let file = variants.into_iter().find(|(of, _)| *of == coding).map_or(file, |(_, variant)| variant);
        let about = file.metadata()?;
        Ok(Self { stamp: Stamp::of(&about), file, coding, is_fallback: false, varies, content_type })
    }

    /// A strong tag: another version has another one, and another variant of this version too (RFC 9110 §8.8.3.3). The time
    /// of the inode's change (ctime) is not in it: copies on several machines have several.
    fn etag(&self) -> String {
        let Stamp { seconds, nanoseconds, length } = self.stamp;
        let coding = self.coding.name().map(|name| format!("-{name}")).unwrap_or_default();
        format!("\"{seconds:x}-{nanoseconds:x}-{length:x}{coding}\"")
    }

    /// Never later than now (RFC 9110 §8.8.2.1).
    fn last_modified(&self, now: u64) -> Option<u64> {
        u64::try_from(self.stamp.seconds).ok().map(|seconds| seconds.min(now))
    }

    fn reply(self, settings: &Settings, request: &FileRequest, lane: &Lane) -> FileReply {
        let (etag, now) = (self.etag(), request.now.seconds());
        let last_modified = self.last_modified(now);
        let ranges = match request.conditions.evaluate(Validators { etag: &etag, last_modified, now }) {
            Outcome::Failed => return FileReply::PreconditionFailed,
            Outcome::NotModified => {
                let fields = self.fields_of_every_status(settings, &etag);
                return FileReply::Response(FileResponse { status: StatusCode::NOT_MODIFIED, fields, body: None });
            }
            Outcome::Send { ranges } => ranges,
        };
        let length = self.stamp.length;
        let wanted = match &request.range {
            Some(field) if ranges => range::wanted(field.as_bytes(), length),
            _ => Wanted::Whole,
        };
        let (status, range) = match wanted {
            Wanted::Unsatisfiable => return FileReply::RangeNotSatisfiable(length),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Wanted::Whole => (StatusCode::OK, 0..length),
        };
        let mut fields = self.fields_of_every_status(settings, &etag);
        self.add_fields_of_content(&mut fields, last_modified);
        fields.push((header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start)));
        if status == StatusCode::PARTIAL_CONTENT {
            fields.extend(content_range(&range, length).map(|value| (header::CONTENT_RANGE, value)));
        }
        if !request.is_get || range.is_empty() {
            return FileReply::Response(FileResponse { status, fields, body: None });
        }
        match FileBody::begin(self.file, self.stamp, range, lane.clone()) {
            Ok(body) => FileReply::Response(FileResponse { status, fields, body: Some(body) }),
            Err(error) => FileReply::Failed(error),
        }
    }

    /// Those that a `304` has as well (RFC 9110 §15.4.5).
    fn fields_of_every_status(&self, settings: &Settings, etag: &str) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields = Vec::with_capacity(12);
        let CacheControl { file, fallback } = &settings.cache_control;
        let cache_control = if self.is_fallback { fallback } else { file };
        fields.push((header::CACHE_CONTROL, cache_control.clone()));
        fields.extend(HeaderValue::try_from(etag).ok().map(|etag| (header::ETAG, etag)));
        let vary = match (self.is_fallback, self.varies) {
            (false, false) => None,
            (false, true) => Some(HeaderValue::from_static("Accept-Encoding")),
            (true, false) => Some(HeaderValue::from_static(PAGE_FIELDS)),
            (true, true) => HeaderValue::try_from(format!("Accept-Encoding, {PAGE_FIELDS}")).ok(),
        };
        fields.extend(vary.map(|vary| (header::VARY, vary)));
        fields
    }

    fn add_fields_of_content(&self, fields: &mut Vec<(HeaderName, HeaderValue)>, last_modified: Option<u64>) {
        fields.push((header::CONTENT_TYPE, self.content_type.clone()));
        fields.push((header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
        fields.push((header::ACCEPT_RANGES, HeaderValue::from_static("bytes")));
        fields.extend(self.coding.name().map(|name| (header::CONTENT_ENCODING, HeaderValue::from_static(name))));
        let date = last_modified.and_then(|seconds| HeaderValue::try_from(precondition::http_date(seconds)).ok());
        fields.extend(date.map(|date| (header::LAST_MODIFIED, date)));
    }
}

/// As in `bytes 0-9/100` (RFC 9110 §14.4).
fn content_range(range: &Range<u64>, length: u64) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))).ok()
}
