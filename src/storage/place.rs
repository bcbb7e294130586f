//! Where a file is: whether its path still names the file that was opened.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A path and the file it named when that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A file is no longer where it was opened: what is written to it is lost, or belongs to nobody.
#[derive(Debug, Error)]
pub enum Displaced {
    /// Its path names nothing.
    #[error("`{}` is gone: put it back, or restart the server", .path.display())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// Its path names another file.
    #[error("`{}` is another file than the one that is open: put that one back, or restart the server", .path.display())]
    Replaced {
        /// Where it was.
        path: PathBuf,
    },
    /// The system does not say.
    #[error("cannot look at `{}`: {reason}", .path.display())]
    Unknown {
        /// Where it was.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

impl Place {
    /// The place of a file that was opened by this path.
    ///
    /// # Errors
    /// If the system does not say which file it is.
    pub fn of(path: &Path, file: &File) -> io::Result<Self> {
        Ok(Self::new(path, &file.metadata()?))
    }

    /// The place of the file that is at this path now.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::new(path, &fs::metadata(path)?))
    }

    fn new(path: &Path, metadata: &fs::Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Looks whether the path still names the file: one call of the system, about a microsecond.
    ///
    /// # Errors
    /// See [`Displaced`].
    pub fn check(&self) -> Result<(), Displaced> {
        let path = || self.path.clone();
        match Self::at(&self.path) {
            Ok(now) if now == *self => Ok(()),
            Ok(_) => Err(Displaced::Replaced { path: path() }),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Err(Displaced::Gone { path: path() })
            }
            Err(reason) => Err(Displaced::Unknown {
                path: path(),
                reason,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_missed_when_it_was_moved_and_found_when_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("a"), directory.path().join("b"));
        let file = File::create(&path).unwrap();
        let place = Place::of(&path, &file).unwrap();
        place.check().unwrap();
        fs::rename(&path, &aside).unwrap();
        assert!(matches!(place.check(), Err(Displaced::Gone { .. })));
        fs::copy(&aside, &path).unwrap();
        assert!(matches!(place.check(), Err(Displaced::Replaced { .. })));
        fs::rename(&aside, &path).unwrap();
        place.check().unwrap();
        // A parent that is a file now.
        let place = Place {
            path: path.join("below"),
            ..place
        };
        assert!(matches!(place.check(), Err(Displaced::Gone { .. })));
    }
}
