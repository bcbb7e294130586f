//! Whether the files have everything that was acknowledged: the database file by a checksum per page, the WAL by the last
//! commit that was noted before its operations were answered.
//!
//! ```text
//!   commit      engine: frames into the WAL, flush     then here: the WAL's last commit into the head, then the answers
//!   checkpoint  engine: pages into the file, flush     then here: their checksums, flush; only then is the WAL reset
//!   opening     here: WAL as far as the head says? pages as their checksums say, except those in the WAL?  then the engine
//! ```
//!
//! - The head is written without a flush: it survives the end of the process. A power cut may lose what was noted since the last
//!   checkpoint, and never what the WAL has.
//! - Only the writer checkpoints, never the engine: otherwise the WAL could be reset before the checksums are written.
//! - The database file stays open for as long as the engine has it open: when a process closes any descriptor of a file, it loses
//!   all its locks on it.

use std::collections::{HashMap, HashSet};
use std::fs::{File as Bytes, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tracing::warn;

use super::connection::File;
use super::error::{Failure, OpenError};
use super::sums::{Head, Sums, WalState, follows, sum};
use super::wal::{self, Mark, Wal};
use crate::storage::place::{Displaced, Place};

/// Bytes of the database file per read.
const READ_AT_ONCE: u32 = 256 << 10;
/// Offsets in the database file's header: its page size and its application id.
const PAGE_SIZE_AT: u64 = 16;
const APPLICATION_AT: u64 = 68;

/// The hint if nothing is damaged.
const ON_PURPOSE: &str =
    "if another program wrote to the database on purpose, remove its `-sums` file";

/// The WAL has a page that was damaged in the file, possibly before it was changed: unknown which.
const PAGE_DAMAGED: &str = "a page was damaged in the file before the WAL was checkpointed";

/// The state of a database's files. The writer locks it for moments; checks take turns with it.
pub(super) type Shared = Arc<Mutex<Integrity>>;

/// The verified state of a database's files.
#[derive(Debug)]
pub(super) struct Integrity {
    name: String,
    file: File,
    database: Bytes,
    /// None until there is one.
    wal: Option<Bytes>,
    sums: Sums,
    places: Vec<Place>,
    /// Nothing was checkpointed since the checksums were written: they cover the whole database file.
    sealed: bool,
    /// Checksums of a complete checkpoint are not written yet. Nothing may be committed before.
    owed: bool,
    /// Another program reset the WAL: all checksums must be computed again.
    overtaken: bool,
    /// Pages that may be torn in the file, since a checkpoint was interrupted; the WAL has them.
    unsure: HashSet<u32>,
}

/// How much a check has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) pages: u32,
    pub(super) frames: u32,
    pub(super) commits: u64,
}

/// Why the files do not have what was acknowledged.
#[derive(Debug)]
pub(super) enum Fault {
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
    pub(super) fn into_open_error(self, path: &Path) -> OpenError {
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
    pub(super) fn examine(file: &File, application: i32) -> Result<Option<(Self, Extent)>, Fault> {
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

    /// Computes the checksums of a file that has none. The WAL must be empty.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn create(file: &File, application: i32) -> io::Result<Self> {
        let database = open(&file.path)?.ok_or(io::ErrorKind::NotFound)?;
        let page_size = page_size(&database)?;
        let pages = database.metadata()?.len() / u64::from(page_size);
        let head = Head {
            application,
            page_size,
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
            wal: WalState::Opening,
            damaged: false,
            commits: 0,
        };
        let sums = create(file, &database, head)?;
        let wal = open(&file.wal())?;
        Self::new(file, database, wal, sums)
    }

    fn new(file: &File, database: Bytes, wal: Option<Bytes>, sums: Sums) -> io::Result<Self> {
        let mut new = Self {
            name: super::metrics::name(&file.path),
            file: file.clone(),
            database,
            wal,
            sums,
            places: Vec::new(),
            sealed: false,
            owed: false,
            overtaken: false,
            unsure: HashSet::new(),
        };
        new.find_places()?;
        Ok(new)
    }

    pub(super) fn shared(self) -> Shared {
        Arc::new(Mutex::new(self))
    }

    pub(super) fn head(&self) -> Head {
        self.sums.head
    }

    /// Whether all files are where they were opened.
    ///
    /// # Errors
    /// See [`Displaced`].
    pub(super) fn in_place(&self) -> Result<(), Displaced> {
        let pinned = self.file.pinned.iter();
        self.places.iter().chain(pinned).try_for_each(Place::check)
    }

    /// Checks the database file and the directory's lock: a directory that is moved, removed or replaced as a whole. Called
    /// after each commit; WAL and checksums are checked each second. (`stat` on a file that is written with every commit makes
    /// the file system store exact times with each flush: a fifth of a commit.)
    ///
    /// # Errors
    /// See [`Displaced`].
    fn database_in_place(&self) -> Result<(), Displaced> {
        let database = self.places.iter().take(1);
        database
            .chain(&*self.file.pinned)
            .try_for_each(Place::check)
    }

    /// Permits the acknowledgement of a commit: it is noted, and its database was not moved.
    ///
    /// # Errors
    /// If it cannot be noted, or the database was moved.
    pub(super) fn acknowledge(&mut self, connection: &Connection) -> Result<(), Failure> {
        self.committed(connection)?;
        Ok(self.database_in_place()?)
    }

    /// The engine has opened the file and is about to write for the first time.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub(super) fn begin(&mut self, connection: &Connection) -> Result<(), Failure> {
        match self.checkpoint(connection, Mode::Passive) {
            Ok(_) => {}
            // On a full disk the WAL stays as it is and grows.
            Err(Failure::Engine(error)) => {
                warn!(database = self.name, %error, "the WAL was not checkpointed");
            }
            // The WAL may be checkpointed without checksums: nothing may be written before they are.
            Err(failure) => return Err(failure),
        }
        if frames(connection)?.0 == 0 {
            // The next WAL's salts are random.
            self.note(WalState::Opening)?;
            self.sums.flush().map_err(Failure::Sums)?;
        }
        Ok(())
    }

    /// Notes the engine's last commit. Called before the commit is answered.
    ///
    /// # Errors
    /// If it cannot be noted: then nothing is acknowledged.
    pub(super) fn committed(&mut self, connection: &Connection) -> Result<(), Failure> {
        let (frames, _) = frames(connection)?;
        if frames == 0 {
            return Ok(());
        }
        let mark = self.end_of_wal(frames).map_err(Failure::Sums)?;
        match self.head().wal {
            WalState::Open { mark: last, .. } if last == mark => return Ok(()),
            wal if wal.is_overtaken_by(&mark) => {
                warn!(
                    database = self.name,
                    "another program has reset the WAL; all checksums are computed again"
                );
                self.overtaken = true;
            }
            _ => {}
        }
        let copied = false;
        self.note(WalState::Open { mark, copied })
    }

    fn end_of_wal(&mut self, frames: u32) -> io::Result<Mark> {
        if self.wal.is_none() {
            self.wal = open(&self.file.wal())?;
            self.find_places()?;
        }
        let wal = self.wal.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(wal::commit(wal, self.head().page_size, frames)?.0)
    }

    fn note(&mut self, wal: WalState) -> Result<(), Failure> {
        let head = self.head();
        let head = Head {
            wal,
            commits: head.commits + 1,
            ..head
        };
        self.sums.write_head(head).map_err(Failure::Sums)
    }

    /// Frames in the WAL, as noted last, that a checkpoint may have to copy.
    pub(super) fn frames_noted(&self) -> u32 {
        match self.head().wal {
            WalState::Open {
                mark,
                copied: false,
            } => mark.frames,
            _ => 0,
        }
    }

    /// Checkpoints the WAL and writes the checksums of the copied pages. False if a reader blocked part of it; the WAL then
    /// grows.
    ///
    /// # Errors
    /// If the engine fails, the checksums cannot be written, or a page that would be overwritten is damaged.
    pub(super) fn checkpoint(
        &mut self,
        connection: &Connection,
        mode: Mode,
    ) -> Result<bool, Failure> {
        self.verify_file(frames(connection)?.0)?;
        self.sealed = false;
        let sql = match mode {
            Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Mode::Full => "PRAGMA wal_checkpoint(FULL)",
        };
        let ran = connection.prepare_cached(sql)?.query_row([], |row| {
            let number = |at| row.get::<_, i64>(at);
            Ok((number(0)?, number(1)?, number(2)?))
        });
        let (busy, frames, copied) = match ran {
            Ok(ran) => ran,
            Err(error) => {
                self.interrupted(frames(connection)?.0);
                return Err(error.into());
            }
        };
        if busy != 0 || copied < frames {
            return Ok(false);
        }
        self.owed = true;
        self.seal(u32::try_from(frames).unwrap_or(0))?;
        Ok(true)
    }

    /// Before a checkpoint, verifies the pages that it overwrites. The engine may have read a damaged page, changed it, and
    /// logged it with the damage; once copied, that page would have a valid checksum.
    fn verify_file(&mut self, frames: u32) -> Result<(), Failure> {
        if self.head().damaged {
            return Err(Failure::Found(PAGE_DAMAGED.to_owned()));
        }
        if frames == 0 || self.overtaken {
            return Ok(());
        }
        let mark = self.end_of_wal(frames).map_err(Failure::Sums)?;
        if self.head().wal.is_overtaken_by(&mark) {
            return Ok(());
        }
        let Some(wal) = &self.wal else {
            return Ok(());
        };
        match self.verify(wal, frames) {
            Ok(()) => Ok(()),
            Err(Fault::Unreadable(reason)) => Err(Failure::Sums(reason)),
            Err(Fault::Foreign) => Err(Failure::Damaged),
            Err(Fault::Damaged(detail)) => {
                let damaged = true;
                let head = Head {
                    damaged,
                    ..self.head()
                };
                // If this fails, this process knows of the damage, but the next one may not.
                let noted = self.sums.write_head(head).and_then(|()| self.sums.flush());
                if let Err(error) = noted {
                    warn!(database = self.name, %error, "damage was found, and could not be stored");
                }
                Err(Failure::Found(detail))
            }
        }
    }

    /// Verifies the pages that the next checkpoint overwrites, and notes damage.
    ///
    /// # Errors
    /// If one is damaged, or cannot be read.
    pub(super) fn verify_again(&mut self) -> Result<(), Failure> {
        match self.head().wal {
            WalState::Open {
                mark,
                copied: false,
            } => self.verify_file(mark.frames),
            _ => Ok(()),
        }
    }

    /// Each page in these frames must be in the file as its checksum says, or as one of the frames has it.
    fn verify(&self, wal: &Bytes, frames: u32) -> Result<(), Fault> {
        let Head {
            page_size, pages, ..
        } = self.head();
        let is_sure = |page: &u32| *page <= pages && !self.unsure.contains(page);
        let last_frames = wal::last_frames(wal, page_size, frames)?;
        let mut others = HashMap::new();
        let mut bytes = vec![0; page_size as usize];
        for page in last_frames.into_keys().filter(is_sure) {
            let Some(expected) = self.sums.pages(page, 1)? else {
                return Fault::damaged("its `-sums` file is truncated");
            };
            let found = sum_of(&self.database, page, &mut bytes)?;
            if expected != [found] {
                others.insert(page, found);
            }
        }
        if others.is_empty() {
            return Ok(());
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
            None => Ok(()),
        }
    }

    /// A checkpoint was interrupted.
    fn interrupted(&mut self, frames: u32) {
        let page_size = self.head().page_size;
        let pages = self
            .wal
            .as_ref()
            .map(|wal| wal::last_frames(wal, page_size, frames));
        if let Some(Ok(pages)) = pages {
            self.unsure.extend(pages.into_keys());
        }
    }

    /// Whether the checksums of a complete checkpoint are still missing; retries them once.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn settle(&mut self, connection: &Connection) -> Result<(), Failure> {
        if self.owed {
            self.seal(frames(connection)?.0)?;
        }
        Ok(())
    }

    /// Writes the checksums of all pages in the first `frames` frames, all of which are in the file.
    fn seal(&mut self, frames: u32) -> Result<(), Failure> {
        self.try_seal(frames).map_err(Failure::Sums)?;
        self.owed = false;
        self.sealed = true;
        self.unsure.clear();
        Ok(())
    }

    fn try_seal(&mut self, frames: u32) -> io::Result<()> {
        if frames > 0 {
            // The WAL exists, though it may not be open yet.
            self.end_of_wal(frames)?;
        }
        let mut head = self.head();
        if let Some(wal) = self.wal.as_ref().filter(|_| frames > 0) {
            let (mark, pages) = wal::commit(wal, head.page_size, frames)?;
            let last_frames = wal::last_frames(wal, head.page_size, frames)?;
            let mut changed = Vec::with_capacity(last_frames.len());
            let mut bytes = vec![0; head.page_size as usize];
            for (&page, &frame) in last_frames.iter().filter(|(page, _)| **page <= pages) {
                wal::page(wal, frame, &mut bytes)?;
                changed.push((page, sum(&bytes)));
            }
            // Pages that were allocated and freed at once are in no frame.
            let new = head.pages.saturating_add(1)..=pages;
            for page in new.filter(|page| !last_frames.contains_key(page)) {
                changed.push((page, sum_of(&self.database, page, &mut bytes)?));
            }
            changed.sort_unstable();
            self.sums.write_pages(&changed)?;
            head.pages = pages;
            head.wal = WalState::Open { mark, copied: true };
        }
        if self.overtaken {
            let pages = self.database.metadata()?.len() / u64::from(head.page_size);
            head.pages = u32::try_from(pages).unwrap_or(u32::MAX);
            self.sums = create(&self.file, &self.database, head)?;
            self.find_places()?;
            self.overtaken = false;
        } else {
            self.sums.write_head(head)?;
            self.sums.flush()?;
        }
        Ok(())
    }

    /// The WAL was checkpointed and removed: no more writes.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.note(WalState::Closed)?;
        self.sums.flush().map_err(Failure::Sums)
    }

    /// Checks some pages from `first` on, while the engine has the file open. Returns the next page, or None at the end.
    ///
    /// # Errors
    /// If a page is damaged.
    /// If something is damaged.
    pub(super) fn check_some(&self, first: u32) -> Result<Option<u32>, Fault> {
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
    pub(super) fn check_head(&self) -> Result<Extent, Fault> {
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

    fn find_places(&mut self) -> io::Result<()> {
        self.places = vec![
            Place::of(&self.file.path, &self.database)?,
            Place::of(&self.file.sums(), self.sums.file())?,
        ];
        if let Some(wal) = &self.wal {
            self.places.push(Place::of(&self.file.wal(), wal)?);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Copies what readers permit now.
    Passive,
    /// Waits for readers up to the busy timeout.
    Full,
}

/// Ignores poisoning: no holder of the lock leaves the value half changed.
pub(super) fn lock(integrity: &Mutex<Integrity>) -> MutexGuard<'_, Integrity> {
    integrity.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frames in the WAL, and how many of them were checkpointed.
pub(super) fn frames(connection: &Connection) -> rusqlite::Result<(u32, u32)> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    statement.query_row([], |row| {
        // -1 without a WAL.
        let number = |at| {
            let number = row.get::<_, i64>(at);
            number.map(|number| u32::try_from(number).unwrap_or(0))
        };
        Ok((number(1)?, number(2)?))
    })
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

/// Opens a file for reading, and for writing if permitted: only then does an overlay file system show the file that is written
/// to.
fn open(path: &Path) -> io::Result<Option<Bytes>> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).open(path);
    let opened = opened.or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            options.write(false).open(path)
        }
        _ => Err(error),
    });
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the file's header has another desk's application id.
fn is_of_another(database: &Bytes, application: i32) -> io::Result<bool> {
    let mut found = [0; 4];
    if !wal::read_at(database, &mut found, APPLICATION_AT)? {
        return Ok(false);
    }
    let found = i32::from_be_bytes(found);
    Ok(found != application && super::migrations::is_ours(found))
}

fn page_size(database: &Bytes) -> io::Result<u32> {
    let mut size = [0; 2];
    if !wal::read_at(database, &mut size, PAGE_SIZE_AT)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // 1 stands for 65,536, which does not fit.
    Ok(match u16::from_be_bytes(size) {
        1 => 65_536,
        size => u32::from(size).max(512),
    })
}

/// Writes a checksum file for all pages of the database file.
fn create(file: &File, database: &Bytes, head: Head) -> io::Result<Sums> {
    let mut bytes = vec![0; head.page_size as usize];
    let pages = (1..=head.pages).map(|page| sum_of(database, page, &mut bytes));
    Sums::create(&file.sums(), head, pages)
}

/// The checksum of a page of the database file; a page behind its end counts as zeros.
fn sum_of(database: &Bytes, page: u32, bytes: &mut [u8]) -> io::Result<u64> {
    bytes.fill(0);
    read_up_to(database, bytes, u64::from(page - 1) * bytes.len() as u64)?;
    Ok(sum(bytes))
}

/// Reads until the buffer is full or the file ends; returns the number of bytes.
fn read_up_to(file: &Bytes, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
