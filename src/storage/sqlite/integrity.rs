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

mod check;

use std::collections::{HashMap, HashSet};
use std::fs::File as Bytes;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tracing::warn;

use self::check::PAGE_DAMAGED;
pub(super) use self::check::{Extent, Fault};
use super::connection::File;
use super::error::Failure;
use super::pages::{create, open, page_size, sum_of};
use super::sums::{Head, Sums, WalState, sum};
use super::wal::{self, Mark};
use crate::storage::displaced::{Displaced, Place};

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

impl Integrity {
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
        let verified = self.verify_file(frames(connection)?.0)?;
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
        self.seal(u32::try_from(frames).unwrap_or(0), verified)?;
        Ok(true)
    }

    /// Before a checkpoint, verifies the pages that it overwrites. The engine may have read a damaged page, changed it, and
    /// logged it with the damage; once copied, that page would have a valid checksum. None if there is nothing to verify.
    fn verify_file(&mut self, frames: u32) -> Result<Option<Verified>, Failure> {
        if self.head().damaged {
            return Err(Failure::Found(PAGE_DAMAGED.to_owned()));
        }
        if frames == 0 || self.overtaken {
            return Ok(None);
        }
        let mark = self.end_of_wal(frames).map_err(Failure::Sums)?;
        if self.head().wal.is_overtaken_by(&mark) {
            return Ok(None);
        }
        let Some(wal) = &self.wal else {
            return Ok(None);
        };
        match self.verify(wal, frames) {
            Ok(last_frames) => Ok(Some(Verified { mark, last_frames })),
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
            } => self.verify_file(mark.frames).map(drop),
            _ => Ok(()),
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
            self.seal(frames(connection)?.0, None)?;
        }
        Ok(())
    }

    /// Writes the checksums of all pages in the first `frames` frames, all of which are in the file.
    fn seal(&mut self, frames: u32, verified: Option<Verified>) -> Result<(), Failure> {
        self.try_seal(frames, verified).map_err(Failure::Sums)?;
        self.owed = false;
        self.sealed = true;
        self.unsure.clear();
        Ok(())
    }

    fn try_seal(&mut self, frames: u32, verified: Option<Verified>) -> io::Result<()> {
        if frames > 0 {
            // The WAL exists, though it may not be open yet.
            self.end_of_wal(frames)?;
        }
        let mut head = self.head();
        if let Some(wal) = self.wal.as_ref().filter(|_| frames > 0) {
            let (mark, pages) = wal::commit(wal, head.page_size, frames)?;
            let last_frames = match verified.filter(|verified| verified.mark == mark) {
                Some(verified) => verified.last_frames,
                None => wal::last_frames(wal, head.page_size, frames)?,
            };
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

/// The WAL up to this commit, whose pages were verified before its checkpoint. Read once: it has some megabytes.
struct Verified {
    mark: Mark,
    last_frames: HashMap<u32, u32>,
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
