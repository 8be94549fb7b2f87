//! The bytes of a file on their way to a client: one piece in memory at a time, read on threads of their own.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use bytes::Bytes;

use crate::blocking::{Lane, NoResult, OnLane};

/// Bytes of a piece: what a response makes the edge hold while its client does not read.
pub const PIECE: u64 = 64 << 10;
/// For one look at the file system, or one piece.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The version of a file: it changes with every write. Not with its time of change (ctime) as well: the name of a file that is
/// being sent may be given to another one, which changes that, and no byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub seconds: i64,
    pub nanoseconds: i64,
    pub length: u64,
}

/// Why a file cannot be read to its end. The label is for the log.
#[derive(Debug)]
pub enum ReadError {
    /// It was written to or cut since its head was sent: what follows would be of another version.
    Changed,
    Failed(io::Error),
    /// The file system does not answer, or too many requests wait for it already.
    NoResult(NoResult),
}

/// What is left of a file, or of a range of it.
pub struct FileBody {
    /// `None` once the last piece has been read.
    file: Option<OnLane<File>>,
    stamp: Stamp,
    /// Read already, and not yet sent.
    first: Option<Bytes>,
    /// What is to be read.
    rest: Range<u64>,
    lane: Lane,
}

impl Stamp {
    pub fn of(about: &Metadata) -> Self {
        Self { seconds: about.mtime(), nanoseconds: about.mtime_nsec(), length: about.len() }
    }
}

impl ReadError {
    /// Every label.
    pub const LABELS: [&str; 4] = ["file_changed", "file_unreadable", "file_reads", "file_timeout"];

    /// For the access log.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Changed => "file_changed",
            Self::Failed(_) => "file_unreadable",
            Self::NoResult(NoResult::Busy) => "file_reads",
            Self::NoResult(_) => "file_timeout",
        }
    }
}

impl FileBody {
    /// A range of a file. Reads the first piece at once, and so is called where it may block.
    pub fn begin(file: File, stamp: Stamp, mut range: Range<u64>, lane: Lane) -> Result<Self, ReadError> {
        let first = piece(&range);
        let bytes = read(&file, first.clone(), stamp)?;
        range.start = first.end;
        let file = (!range.is_empty()).then(|| OnLane::new(file, lane.clone()));
        Ok(Self { file, stamp, first: Some(bytes), rest: range, lane })
    }

    /// Returns the next piece; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(file) = self.file.take() else { return Ok(None) };
        let (next, stamp) = (piece(&self.rest), self.stamp);
        self.rest.start = next.end;
        let is_last = self.rest.is_empty();
        let reading = self.lane.run(READ_TIMEOUT, move || {
            let open = file.get().ok_or(ReadError::NoResult(NoResult::Failed))?;
            let bytes = read(open, next, stamp)?;
            if is_last {
                file.drop_here();
                return Ok((bytes, None));
            }
            Ok((bytes, Some(file)))
        });
        let (bytes, file) = reading.await.map_err(ReadError::NoResult)??;
        self.file = file;
        Ok(Some(bytes))
    }

    /// Whether the pieces that were returned are all of them.
    pub const fn is_at_end(&self) -> bool {
        self.first.is_none() && self.file.is_none()
    }
}

fn piece(range: &Range<u64>) -> Range<u64> {
    range.start..range.end.min(range.start.saturating_add(PIECE))
}

/// Reads all of a range, of this version of the file.
fn read(file: &File, range: Range<u64>, stamp: Stamp) -> Result<Bytes, ReadError> {
    let length = usize::try_from(range.end - range.start).unwrap_or_default();
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], range.start + filled as u64) {
            Ok(0) => return Err(ReadError::Changed),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadError::Failed(error)),
        }
    }
    // After the bytes were read: if it is this version still, they are of this version.
    match file.metadata() {
        Ok(about) if Stamp::of(&about) == stamp => Ok(bytes.into()),
        Ok(_) => Err(ReadError::Changed),
        Err(error) => Err(ReadError::Failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::blocking::BlockingThreads;

    fn begin(path: &Path, range: Range<u64>) -> Result<FileBody, ReadError> {
        let threads = Arc::new(BlockingThreads::new().unwrap());
        let file = File::open(path).unwrap();
        let stamp = Stamp::of(&file.metadata().unwrap());
        FileBody::begin(file, stamp, range, threads.lane(path))
    }

    #[tokio::test]
    async fn a_range_is_read_in_pieces_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let content: Vec<u8> = (0..3 * PIECE + 7).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        for range in [0..content.len(), 0..1, 5..10, 7..(PIECE as usize + 7), 100..content.len(), 4..4] {
            let mut body = begin(&path, range.start as u64..range.end as u64).unwrap();
            let mut read = Vec::new();
            while let Some(piece) = body.next().await.unwrap() {
                assert!(piece.len() <= PIECE as usize);
                read.extend_from_slice(&piece);
            }
            assert!(body.is_at_end());
            assert_eq!(read, content[range.clone()], "{range:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_ends_its_response() {
        let folder = tempfile::tempdir().unwrap();
        let content = vec![b'x'; 3 * PIECE as usize];
        let append = |path: &Path| File::options().append(true).open(path).unwrap().write_all(b"y").unwrap();
        let cut = |path: &Path| File::options().write(true).open(path).unwrap().set_len(10).unwrap();
        let rewrite = |path: &Path| std::fs::write(path, vec![b'z'; 3 * PIECE as usize]).unwrap();
        type Change<'a> = (&'a str, &'a dyn Fn(&Path));
        let changes: [Change<'_>; 3] = [("append", &append), ("cut", &cut), ("rewrite", &rewrite)];
        for (name, change) in changes {
            let path = folder.path().join(name);
            std::fs::write(&path, &content).unwrap();
            let mut body = begin(&path, 0..content.len() as u64).unwrap();
            body.next().await.unwrap();
            change(&path);
            assert!(matches!(body.next().await, Err(ReadError::Changed)), "{name}");
            assert!(matches!(body.next().await, Ok(None)), "{name}: there is no more");
        }
        // One that was put in its place is another file.
        let path = folder.path().join("replaced");
        std::fs::write(&path, &content).unwrap();
        let mut body = begin(&path, 0..content.len() as u64).unwrap();
        body.next().await.unwrap();
        std::fs::write(folder.path().join("new"), "new").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(body.next().await.unwrap().unwrap().iter().all(|byte| *byte == b'x'));
    }
}
