//! The data directory, and the lock that keeps a second server out of it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tracing::warn;

use super::place::Place;

/// The file that is locked. It stays behind when the server ends; what counts is the lock on it.
const LOCK: &str = "odyssey.lock";
/// Longest description of a holder that is read, in bytes.
const HOLDER_MAX: u64 = 256;

/// A directory of this process's own, for as long as the value lives. However the process ends, the kernel releases it.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Where the lock is: a directory that was moved away is another server's to take.
    lock_place: Place,
    /// Its descriptor is closed on exec, as all of the standard library's are: a child does not inherit the lock.
    _lock: File,
}

/// Why the data directory cannot be had.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// It is not there, and cannot be made.
    #[error("cannot create the data directory `{}`: {reason}", .path.display())]
    NotCreatable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It is there, and cannot be written to.
    #[error("cannot write to the data directory `{}`: {reason}", .path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Another server has it.
    #[error("the data directory `{}` is in use by {holder}; two servers cannot share one", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as is known.
        holder: String,
    },
}

impl DataDirectory {
    /// Takes the directory; makes it, for nobody but this user, if it is missing.
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the lock is. Whoever writes into the directory looks whether it is still there.
    pub fn lock_place(&self) -> &Place {
        &self.lock_place
    }

    /// Where a file of this name is, or would be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes a directory, and those above it, for this user only, if they are missing; returns when they are on the disk.
///
/// # Errors
/// If that cannot be done.
pub fn create(path: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let new: Vec<&Path> = path.ancestors().take_while(missing).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // An entry is on the disk once the directory that has it is.
    new.into_iter().try_for_each(sync_parent)
}

/// Flushes the directory that a file or directory is in.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    let here = parent.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { parent })?.sync_all()
}

enum Locked {
    Ours(File),
    /// Who has it.
    Theirs(String),
}

fn lock(path: &Path) -> io::Result<Locked> {
    let mut options = OpenOptions::new();
    // Not truncated: until the lock is ours, the words in it are somebody else's.
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Locked::Theirs(holder(&mut file))),
        Err(error) => return Err(error.into()),
    }
    // A full disk must not keep a server down: the lock counts, the words only help.
    if let Err(error) = sign(&mut file) {
        warn!(path = %path.display(), %error, "cannot write down who holds the data directory");
    }
    Ok(Locked::Ours(file))
}

/// Writes down who has the lock now.
fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let process = std::process::id();
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    // Process ids repeat from container to container; host names do not.
    let since = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    writeln!(file, "process {process} on {host} since {since}")
}

/// Who has the lock; they may not have come to write it down yet.
fn holder(file: &mut File) -> String {
    let mut said = Vec::new();
    let read = file.take(HOLDER_MAX).read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next().unwrap_or_default();
    if read.is_err() || line.is_empty() || line.contains(char::is_control) {
        "another process".to_owned()
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests;
