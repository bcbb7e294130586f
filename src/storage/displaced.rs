//! Whether a path still names the file that was opened, or that file was moved, replaced or removed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A path and the file it named when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A file was moved or replaced since it was opened: writes to it are lost.
#[derive(Debug, Error)]
pub enum Displaced {
    #[error("`{}` is gone: put it back, or restart the server", .path.display())]
    Gone { path: PathBuf },
    #[error("`{}` is another file than the one that is open: put that one back, or restart the server", .path.display())]
    Replaced { path: PathBuf },
    #[error("cannot stat `{}`: {reason}", .path.display())]
    Unknown { path: PathBuf, reason: io::Error },
}

impl Place {
    /// # Errors
    /// If `fstat` fails.
    pub fn of(path: &Path, file: &File) -> io::Result<Self> {
        Ok(Self::new(path, &file.metadata()?))
    }

    /// The file that is at this path now.
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

    /// Checks that the path still names the file: one system call, about a microsecond.
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
        // A parent that became a file.
        let place = Place {
            path: path.join("below"),
            ..place
        };
        assert!(matches!(place.check(), Err(Displaced::Gone { .. })));
    }
}
