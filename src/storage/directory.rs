//! The data directory, and the lock that prevents a second server in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tracing::warn;

use super::displaced::Place;

/// Stays when the server ends; only the lock on it counts.
const LOCK: &str = "odyssey.lock";
/// Longest description of a holder that is read, in bytes.
const HOLDER_MAX: u64 = 256;

/// The lock on a data directory, for as long as the value lives. However the process ends, the kernel releases it.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// A directory that was moved away can be locked by another server.
    lock_place: Place,
    /// Closed on exec, as all of the standard library's descriptors are: a child does not inherit the lock.
    _lock: File,
}

#[derive(Debug, Error)]
pub enum DirectoryError {
    #[error("cannot create the data directory `{}`: {reason}", .path.display())]
    NotCreatable { path: PathBuf, reason: io::Error },
    #[error("cannot write to the data directory `{}`: {reason}", .path.display())]
    NotWritable { path: PathBuf, reason: io::Error },
    #[error("the data directory `{}` is in use by {holder}; two servers cannot share one", .path.display())]
    InUse {
        path: PathBuf,
        /// The holder, as far as known.
        holder: String,
    },
}

impl DataDirectory {
    /// Locks the directory; creates it, for this user only, if it is missing.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let path = path.into();
        if let Err(reason) = create(&path) {
            return Err(DirectoryError::NotCreatable { path, reason });
        }
        match lock(&path.join(LOCK)) {
            Ok(Locked::Ours(lock)) => match Place::of(&path.join(LOCK), &lock) {
                Ok(lock_place) => Ok(Self {
                    path,
                    lock_place,
                    _lock: lock,
                }),
                Err(reason) => Err(DirectoryError::NotWritable { path, reason }),
            },
            Ok(Locked::Theirs(holder)) => Err(DirectoryError::InUse { path, holder }),
            Err(reason) => Err(DirectoryError::NotWritable { path, reason }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every writer into the directory checks that the lock is still there.
    pub fn lock_place(&self) -> &Place {
        &self.lock_place
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Creates a directory and its missing parents for this user only; returns when they are on the disk.
///
/// # Errors
/// If `mkdir` or a flush fails.
pub fn create(path: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let new: Vec<&Path> = path.ancestors().take_while(missing).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // An entry is durable once its directory is flushed.
    new.into_iter().try_for_each(sync_parent)
}

/// Flushes the directory that a file or directory is in.
///
/// # Errors
/// If it cannot be opened or flushed.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    let here = parent.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { parent })?.sync_all()
}

enum Locked {
    Ours(File),
    Theirs(String),
}

fn lock(path: &Path) -> io::Result<Locked> {
    let mut options = OpenOptions::new();
    // Not truncated: until the lock is ours, the text in it is the holder's.
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Locked::Theirs(holder(&mut file))),
        Err(error) => return Err(error.into()),
    }
    // A full disk must not prevent the start: the lock counts, its text only helps.
    if let Err(error) = write_holder(&mut file) {
        warn!(path = %path.display(), %error, "cannot write the holder into the lock file");
    }
    Ok(Locked::Ours(file))
}

/// Writes who holds the lock.
fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let process = std::process::id();
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    // Process ids repeat from container to container; host names do not.
    let since = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    writeln!(file, "process {process} on {host} since {since}")
}

/// Who holds the lock; the holder may not have written it yet.
fn holder(file: &mut File) -> String {
    let mut text = Vec::new();
    let read = file.take(HOLDER_MAX).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    if read.is_err() || line.is_empty() || line.contains(char::is_control) {
        "another process".to_owned()
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests;
