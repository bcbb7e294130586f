//! The log's files. Each flush appends a gzip member (RFC 1952), so that a file is readable at any time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use uuid::Uuid;

use crate::storage::directory;
use crate::values::id::unique;

const EXTENSION: &str = ".ndjson.gz";
/// Length of the hour: `2026-11-21T15`.
const HOUR_CHARS: usize = 13;
const DAY_CHARS: usize = 10;
const UUID_CHARS: usize = 36;
/// Longest part of an instance's name, in characters.
const INSTANCE_CHARS_MAX: usize = 64;
/// Smallest size of a file on disk, in bytes. Files are counted in such blocks, so that many small ones are bounded too.
const BLOCK: u64 = 4096;

/// A file's size on disk, in bytes.
pub(super) fn footprint(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

/// `<hour>-<instance>-<uuid>.ndjson.gz`, with the hour of the first entry: a file's name in the spool. The path in the archive and
/// the object's key are derived from it alone, so that a repeated upload overwrites itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn new(at: Timestamp, instance: &str) -> Self {
        let valid = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        let instance = instance.chars().take(INSTANCE_CHARS_MAX);
        let instance: String = instance
            .map(|it| if valid(it) { it } else { '-' })
            .collect();
        let instance = if instance.is_empty() {
            "odyssey"
        } else {
            &instance
        };
        let (hour, uuid) = (at.strftime("%Y-%m-%dT%H"), unique(Timestamp::now()));
        Self(format!("{hour}-{instance}-{uuid}{EXTENSION}"))
    }

    /// None for a foreign file.
    pub(super) fn parse(file: &str) -> Option<Self> {
        let (hour, rest) = file.split_at_checked(HOUR_CHARS)?;
        format!("{hour}:00:00Z").parse::<Timestamp>().ok()?;
        (rest.starts_with('-') && age(rest).is_some()).then(|| Self(file.to_owned()))
    }

    /// Whether an entry of this time belongs into a file of the hour, or of the day.
    pub(super) fn is_of(&self, at: Timestamp, hourly: bool) -> bool {
        let chars = if hourly { HOUR_CHARS } else { DAY_CHARS };
        let hour = at.strftime("%Y-%m-%dT%H").to_string();
        self.0[..chars] == hour[..chars]
    }

    pub(super) fn in_spool(&self, spool: &Path) -> PathBuf {
        spool.join(&self.0)
    }

    /// `dt=2026-11-21/<instance>-<uuid>.ndjson.gz`
    pub(super) fn in_archive(&self, directory: &Path) -> PathBuf {
        let (day, rest) = (&self.0[..DAY_CHARS], &self.0[HOUR_CHARS + 1..]);
        directory.join(format!("dt={day}/{rest}"))
    }

    /// `<prefix>/dt=2026-11-21/hr=15/<instance>-<uuid>.ndjson.gz`
    #[cfg(feature = "aws")]
    pub(super) fn key(&self, prefix: &str) -> String {
        let slash = if prefix.is_empty() { "" } else { "/" };
        let (day, hour, rest) = (
            &self.0[..DAY_CHARS],
            &self.0[11..13],
            &self.0[HOUR_CHARS + 1..],
        );
        format!("{prefix}{slash}dt={day}/hr={hour}/{rest}")
    }
}

/// Sorts files by their begin: a version 7 UUID starts with the time. None for a foreign file.
fn age(file: &str) -> Option<&str> {
    let name = file.strip_suffix(EXTENSION)?;
    let uuid = name.get(name.len().checked_sub(UUID_CHARS)?..)?;
    Uuid::try_parse(uuid).is_ok().then_some(uuid)
}

/// The files in a directory and in its days, the oldest first; without foreign ones.
pub(super) fn oldest_first(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for file in fs::read_dir(directory)? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_str().unwrap_or_default();
            if name.starts_with("dt=") {
                directories.push(file.path());
            }
            files.extend(age(name).map(|age| (age.to_owned(), file.path())));
        }
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// The file that is being written, and the lines that are not in it yet.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    /// None until the first save.
    pub(super) file: Option<File>,
    /// Bytes in the file.
    pub(super) length: u64,
    pub(super) unsaved: Vec<u8>,
    pub(super) unsaved_entries: usize,
    /// All lines, uncompressed.
    pub(super) bytes: u64,
    pub(super) began: Instant,
}

impl Current {
    pub(super) fn new(name: Name, path: PathBuf) -> Self {
        Self {
            name,
            path,
            file: None,
            length: 0,
            unsaved: Vec::new(),
            unsaved_entries: 0,
            bytes: 0,
            began: Instant::now(),
        }
    }

    pub(super) fn push(&mut self, line: &[u8]) {
        self.unsaved.extend_from_slice(line);
        self.unsaved_entries += 1;
        self.bytes += line.len() as u64;
    }

    /// Appends the lines as a member. They are in the page cache afterwards: a kill of this process does not lose them.
    /// Idempotent: a repeated write overwrites a partial one.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        let mut member = GzEncoder::new(Vec::new(), Compression::default());
        member.write_all(&self.unsaved)?;
        let member = member.finish()?;
        file.write_all_at(&member, self.length)?;
        self.length += member.len() as u64;
        Ok(())
    }

    /// Removes the unsaved lines from memory; returns their number.
    pub(super) fn clear(&mut self) -> u64 {
        self.unsaved.clear();
        std::mem::take(&mut self.unsaved_entries) as u64
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        directory::create(parent)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Removes a member at the end that a kill has torn; returns how many lines were in it. A file without a whole one is removed.
pub(super) fn trim(path: &Path) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    if bytes.is_empty() {
        fs::remove_file(path)?;
    }
    let (mut rest, mut lines) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let mut member = GzDecoder::new(rest);
        lines.clear();
        if member.read_to_end(&mut lines).is_err() {
            let whole = bytes.len() - rest.len();
            if whole == 0 {
                fs::remove_file(path)?;
            } else {
                let file = OpenOptions::new().write(true).open(path)?;
                file.set_len(whole as u64)?;
            }
            return Ok(lines.split(|byte| *byte == b'\n').count() as u64);
        }
        rest = member.into_inner();
    }
    Ok(0)
}
