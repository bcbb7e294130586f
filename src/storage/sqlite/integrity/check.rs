//! Checks whether database file, WAL and checksums agree. Changes nothing.

use std::collections::HashMap;
use std::fs::File as Bytes;
use std::io;
use std::path::Path;

use super::Integrity;
use crate::storage::sqlite::connection::File;
use crate::storage::sqlite::error::OpenError;
use crate::storage::sqlite::pages::{is_of_another, open, read_up_to, sum_of};
use crate::storage::sqlite::sums::{Head, Sums, WalState, follows, sum};
use crate::storage::sqlite::wal::{self, Wal};

/// Bytes of the database file per read.
const READ_AT_ONCE: u32 = 256 << 10;

/// The hint if nothing is damaged.
const ON_PURPOSE: &str =
    "if another program wrote to the database on purpose, remove its `-sums` file";

/// The WAL has a page that was damaged in the file, possibly before it was changed: unknown which.
pub(super) const PAGE_DAMAGED: &str =
    "a page was damaged in the file before the WAL was checkpointed";

/// How much a check has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Extent {
    pub(in super::super) pages: u32,
    pub(in super::super) frames: u32,
    pub(in super::super) commits: u64,
}

/// Why the files do not have what was acknowledged.
#[derive(Debug)]
pub(in super::super) enum Fault {
    /// Part of a sentence: what was found.
    Damaged(String),
    /// The checksum file is of another database.
    Foreign,
    Unreadable(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            Self::Damaged(error.to_string())
        } else {
            Self::Unreadable(error)
        }
    }
}

impl Fault {
    pub(in super::super) fn into_open_error(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Damaged(detail) => OpenError::Damaged { path, detail },
            Self::Foreign => OpenError::Foreign { path },
            Self::Unreadable(reason) => OpenError::Unverifiable { path, reason },
        }
    }

    fn damaged<T>(detail: impl Into<String>) -> Result<T, Self> {
        Err(Self::Damaged(detail.into()))
    }
}

impl Integrity {
    /// Examines the files before the engine opens them; changes nothing. Reads the whole file. None if there are no checksums:
    /// the file is new, or older than they are.
    ///
    /// # Errors
    /// If acknowledged data is missing or damaged.
    pub(in super::super) fn examine(
        file: &File,
        application: i32,
    ) -> Result<Option<(Self, Extent)>, Fault> {
        let Some(sums) = Sums::open(&file.sums())? else {
            return Ok(None);
        };
        let database = match open(&file.path)? {
            Some(database) if database.metadata()?.len() > 0 => database,
            _ => return Fault::damaged("empty or missing, while its `-sums` file is not"),
        };
        if sums.head.application != application || is_of_another(&database, application)? {
            return Err(Fault::Foreign);
        }
        if sums.head.damaged {
            return Fault::damaged(PAGE_DAMAGED);
        }
        let wal = open(&file.wal())?;
        let whole = wal.as_ref().map(Wal::read).transpose()?.flatten();
        check_wal(&sums.head, whole.as_ref())?;
        let mut examined = Self::new(file, database, wal, sums)?;
        examined.check_length(whole.as_ref())?;
        let pages = whole
            .as_ref()
            .map_or(examined.head().pages, |wal| wal.pages);
        let none = HashMap::new();
        let in_wal = whole.as_ref().map_or(&none, |wal| &wal.last_frames);
        let mut first = 1;
        while first <= pages {
            first = examined.check_pages(first, pages, in_wal)?;
        }
        examined.unsure = in_wal.keys().copied().collect();
        let extent = Extent {
            pages,
            frames: whole.map_or(0, |wal| wal.end().frames),
            commits: examined.head().commits,
        };
        Ok(Some((examined, extent)))
    }

    /// Each page in these frames must be in the file as its checksum says, or as one of the frames has it. Returns the last
    /// frame of each.
    pub(super) fn verify(&self, wal: &Bytes, frames: u32) -> Result<HashMap<u32, u32>, Fault> {
        let Head {
            page_size, pages, ..
        } = self.head();
        let is_sure = |page: &u32| *page <= pages && !self.unsure.contains(page);
        let last_frames = wal::last_frames(wal, page_size, frames)?;
        let mut others = HashMap::new();
        let mut bytes = vec![0; page_size as usize];
        for &page in last_frames.keys().filter(|page| is_sure(page)) {
            let Some(expected) = self.sums.pages(page, 1)? else {
                return Fault::damaged("its `-sums` file is truncated");
            };
            let found = sum_of(&self.database, page, &mut bytes)?;
            if expected != [found] {
                others.insert(page, found);
            }
        }
        if others.is_empty() {
            return Ok(last_frames);
        }
        // Copied before, when a reader blocked the rest, or by another program.
        let mut fewest = pages;
        wal::each(wal, page_size, frames, |_, page, length, bytes| {
            if length > 0 {
                fewest = fewest.min(length);
            }
            if others.get(&page).is_some_and(|found| *found == sum(bytes)) {
                others.remove(&page);
            }
        })?;
        // A commit truncated the file, and a later one extended it again.
        match others.into_keys().filter(|page| *page <= fewest).min() {
            Some(page) => Fault::damaged(format!(
                "page {page} is not what was written, and is in the WAL, too"
            )),
            None => Ok(last_frames),
        }
    }

    /// Checks some pages from `first` on, while the engine has the file open. Returns the next page, or None at the end.
    ///
    /// # Errors
    /// If a page is damaged.
    pub(in super::super) fn check_some(&self, first: u32) -> Result<Option<u32>, Fault> {
        let head = self.head();
        let mut in_wal = HashMap::new();
        if let (false, WalState::Open { mark, .. }, Some(wal)) = (self.sealed, head.wal, &self.wal)
        {
            in_wal = wal::last_frames(wal, head.page_size, mark.frames)?;
        }
        if first > head.pages {
            return Ok(None);
        }
        let next = self.check_pages(first, head.pages, &in_wal)?;
        Ok((next <= head.pages).then_some(next))
    }

    /// Checks the WAL and the checksum file's head while the engine has the file open.
    ///
    /// # Errors
    /// If they are damaged.
    pub(in super::super) fn check_head(&self) -> Result<Extent, Fault> {
        // Files that were moved may be intact, but may not be the ones that come back.
        self.in_place().map_err(io::Error::other)?;
        let head = self.head();
        if !self.sums.has_head()? {
            return Fault::damaged("its `-sums` file is not what was written");
        }
        if head.damaged {
            return Fault::damaged(PAGE_DAMAGED);
        }
        let mut frames = 0;
        // Checkpointed frames may be overwritten at any moment.
        if let WalState::Open {
            mark,
            copied: false,
        } = head.wal
        {
            frames = mark.frames;
            let whole = self.wal.as_ref().map(Wal::read).transpose()?.flatten();
            if !whole.is_some_and(|whole| whole.reaches(&mark)) {
                return Fault::damaged(format!("its WAL is damaged before frame {frames}"));
            }
        }
        Ok(Extent {
            pages: head.pages,
            frames,
            commits: head.commits,
        })
    }

    /// The file's length, if nothing in the WAL can have changed it.
    fn check_length(&self, wal: Option<&Wal>) -> Result<(), Fault> {
        let Head {
            page_size, pages, ..
        } = self.head();
        let expected = u64::from(pages) * u64::from(page_size);
        let length = self.database.metadata()?.len();
        if wal.is_none() && length != expected {
            return Fault::damaged(format!("{length} bytes long instead of {expected}"));
        }
        Ok(())
    }

    /// Checks pages `first..=last`, except those that are in the WAL. Returns the page after.
    fn check_pages(&self, first: u32, last: u32, in_wal: &HashMap<u32, u32>) -> Result<u32, Fault> {
        let head = self.head();
        let page_size = head.page_size as usize;
        let at_once = (READ_AT_ONCE / head.page_size).max(1);
        let count = at_once.min(last - first + 1);
        let summed = head.pages.saturating_sub(first - 1).min(count);
        let Some(mut sums) = self.sums.pages(first, summed)? else {
            return Fault::damaged("its `-sums` file is truncated");
        };
        // Pages that were never written are zeros, if the file is that long.
        sums.resize(count as usize, sum(&vec![0; page_size]));
        let mut bytes = vec![0; page_size * count as usize];
        let read = read_up_to(
            &self.database,
            &mut bytes,
            u64::from(first - 1) * page_size as u64,
        )?;
        let pages = bytes.chunks_exact(page_size).zip(sums);
        for (page, (bytes, expected)) in (first..).zip(pages) {
            if in_wal.contains_key(&page) {
                continue;
            }
            let is_there = (page - first + 1) as usize * page_size <= read;
            if !is_there && page <= head.pages {
                return Fault::damaged(format!("it ends before its page {page}"));
            }
            if sum(bytes) != expected {
                return Fault::damaged(format!(
                    "page {page} is not what was written; {ON_PURPOSE}"
                ));
            }
        }
        Ok(first + count)
    }
}

/// Whether the WAL is what the head says.
fn check_wal(head: &Head, wal: Option<&Wal>) -> Result<(), Fault> {
    if wal.is_some_and(|wal| wal.page_size() != head.page_size) {
        return Fault::damaged("its `-wal` file is another database's");
    }
    match (head.wal, wal) {
        (WalState::Opening, _) | (WalState::Closed | WalState::Open { copied: true, .. }, None) => {
            Ok(())
        }
        (WalState::Closed, Some(_)) => {
            Fault::damaged("it was closed without a WAL, and has a `-wal` file with commits")
        }
        (WalState::Open { mark, .. }, Some(wal)) if wal.reaches(&mark) => Ok(()),
        // The WAL was reset after a full checkpoint; no commit of it was noted yet.
        (WalState::Open { mark, copied: true }, Some(wal)) if follows(mark.salts, wal.salts) => {
            Ok(())
        }
        (WalState::Open { mark, .. }, None) => Fault::damaged(format!(
            "its `-wal` file is missing or damaged, and had {} frames; {ON_PURPOSE}",
            mark.frames
        )),
        (WalState::Open { mark, .. }, Some(wal)) if wal.salts == mark.salts => {
            Fault::damaged(format!(
                "its `-wal` file is valid up to frame {} of {}",
                wal.end().frames,
                mark.frames
            ))
        }
        (WalState::Open { .. }, Some(_)) => {
            Fault::damaged("its `-wal` file is another one than was written")
        }
    }
}
