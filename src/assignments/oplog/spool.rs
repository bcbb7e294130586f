//! The log's files: the current one, those that wait for upload, and the archive; and whether there is room for more
//! ([`Fullness`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::name::{Found, Name, archived_age};
use crate::storage::{Condition, directory};

/// Smallest size of a file on disk, in bytes. Files are counted in such blocks, so that many small ones are bounded too.
pub(super) const BLOCK: u64 = 4096;
/// Bytes that are read at once to find the end of the last line.
const LOOK: u64 = 64 << 10;
/// How often a full spool is measured: files may have been removed by hand.
const MEASURE: Duration = Duration::from_secs(10);

/// A file's size on disk, in bytes.
fn footprint(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

/// The directory in which files are written and wait. One thread writes to it; another may upload and remove packed files.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    /// Where packed files stay, if they are not uploaded.
    archive: Option<Archive>,
    bytes_max: u64,
    /// Never held during file I/O: gauges are updated on the runtime.
    held: Mutex<Held>,
    /// Held while files are measured or one is removed, so that neither sees half of the other.
    files: Mutex<()>,
    /// Notified when a file was packed.
    pub(super) arrived: Notify,
    /// A test's disk size, in bytes that are left.
    #[cfg(test)]
    pub(super) room: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
pub(super) struct Archive {
    /// The parent of the days' directories.
    pub(super) directory: PathBuf,
    /// Beyond it the oldest are removed.
    pub(super) files_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// In whole blocks.
    pub(super) bytes: u64,
    /// How often a file was archived, uploaded, or removed by hand.
    pub(super) freed: u64,
}

/// The current file.
#[derive(Debug)]
pub(super) struct Segment {
    name: Name,
    file: File,
    length: u64,
    pub(super) lines: u64,
    pub(super) began: Instant,
}

/// A file that is complete.
#[derive(Debug)]
pub(super) struct Closed {
    name: Name,
    /// Length of its whole lines, in bytes.
    length: u64,
    /// Lines that this process wrote to it.
    pub(super) lines: u64,
}

impl Segment {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn close(self) -> Closed {
        Closed {
            name: self.name,
            length: self.length,
            lines: self.lines,
        }
    }
}

impl Spool {
    /// Opens the spool `directory`, and creates it if it is missing. Half-packed files are removed: their sources still exist. Returns
    /// the segments of earlier processes, oldest first, and how many of them end in a torn line.
    ///
    /// # Errors
    /// If the directory cannot be created, read or written to.
    pub(super) fn open(
        directory: PathBuf,
        archive: Option<Archive>,
        bytes_max: u64,
    ) -> io::Result<(Self, Vec<Closed>, u64)> {
        make_directory(&directory)?;
        check_writable(&directory)?;
        let spool = Self {
            directory,
            archive,
            bytes_max,
            held: Mutex::default(),
            files: Mutex::default(),
            arrived: Notify::new(),
            #[cfg(test)]
            room: std::sync::atomic::AtomicU64::new(u64::MAX),
        };
        let (mut left, mut torn) = (Vec::new(), 0);
        for file in spool.files()? {
            match file {
                Found::Part(name) => fs::remove_file(spool.directory.join(name.part()))?,
                Found::Plain(name) => {
                    let file = File::open(spool.directory.join(name.plain()))?;
                    let length = whole_lines(&file)?;
                    torn += u64::from(length < file.metadata()?.len());
                    let lines = 0;
                    left.push(Closed {
                        name,
                        length,
                        lines,
                    });
                }
                // The archive takes files that were packed for upload by an earlier configuration.
                Found::Packed(name) => {
                    if let Some(archive) = &spool.archive {
                        archive.take(&spool.directory.join(name.packed()), &name)?;
                    }
                }
            }
        }
        left.sort_unstable_by(|one, other| one.name.age().cmp(other.name.age()));
        spool.measure()?;
        Ok((spool, left, torn))
    }

    pub(super) fn begin(&self, name: Name) -> io::Result<Segment> {
        // It may have been removed by hand, or be on a disk that was unmounted.
        make_directory(&self.directory)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.directory.join(name.plain()))?;
        Ok(Segment {
            name,
            file,
            length: 0,
            lines: 0,
            began: Instant::now(),
        })
    }

    /// Appends lines to the file, all or none. They are in the page cache afterwards: a crash of this process does not lose
    /// them.
    pub(super) fn append(&self, segment: &mut Segment, lines: &[u8]) -> io::Result<()> {
        if let Err(error) = self.write_at(segment, lines) {
            // Removes a partial write. If that fails, the next lines overwrite it.
            let _ = segment.file.set_len(segment.length);
            return Err(error);
        }
        let before = footprint(segment.length);
        segment.length += lines.len() as u64;
        self.held().bytes += footprint(segment.length) - before;
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "a test's disk has an end")]
    fn write_at(&self, segment: &Segment, lines: &[u8]) -> io::Result<()> {
        segment.file.write_all_at(lines, segment.length)
    }

    #[cfg(test)]
    fn write_at(&self, segment: &Segment, lines: &[u8]) -> io::Result<()> {
        use std::sync::atomic::Ordering;
        let room = self.room.load(Ordering::SeqCst);
        let fits = lines.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        segment.file.write_all_at(&lines[..fits], segment.length)?;
        if fits < lines.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if room < u64::MAX {
            self.room.store(room - fits as u64, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Packs a file's lines and removes it. Idempotent.
    ///
    /// # Errors
    /// On an I/O error; the file still exists then, unless the error is [`io::ErrorKind::NotFound`].
    pub(super) fn pack(&self, closed: &Closed) -> io::Result<()> {
        let plain = self.directory.join(closed.name.plain());
        let mut lines = File::open(&plain)?;
        let was = footprint(lines.metadata()?.len());
        let mut now = 0;
        if closed.length > 0 {
            let part = self.directory.join(closed.name.part());
            let packed = compress(&mut lines, closed.length, &part);
            let renamed = packed.and_then(|length| {
                now = length;
                self.keep_packed(&part, &closed.name)
            });
            if let Err(error) = renamed {
                let _ = fs::remove_file(&part);
                // The segment exists: something else is missing.
                return Err(match error.kind() {
                    io::ErrorKind::NotFound => io::Error::other(error),
                    _ => error,
                });
            }
        }
        fs::remove_file(&plain)?;
        let mut held = self.held();
        held.bytes = held.bytes.saturating_sub(was);
        if self.archive.is_some() {
            held.freed += 1;
        } else {
            held.bytes += footprint(now);
        }
        drop(held);
        self.arrived.notify_one();
        Ok(())
    }

    /// Renames a packed file.
    fn keep_packed(&self, part: &Path, name: &Name) -> io::Result<()> {
        match &self.archive {
            Some(archive) => archive.take(part, name),
            None => move_file(part, &self.directory, &name.packed()),
        }
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.held().bytes + footprint(bytes as u64) <= self.bytes_max
    }

    pub(super) fn holds(&self) -> Held {
        *self.held()
    }

    /// Whether a quarter of the spool is free again.
    fn is_relieved(&self) -> bool {
        self.held().bytes <= self.bytes_max / 4 * 3
    }

    /// Measures the files: some may have been removed by hand.
    fn measure(&self) -> io::Result<()> {
        let _files = self.lock_files();
        let mut bytes = 0;
        for file in self.files()? {
            let (Found::Plain(name) | Found::Part(name) | Found::Packed(name)) = &file;
            let path = self.directory.join(match &file {
                Found::Plain(_) => name.plain(),
                Found::Part(_) => name.part(),
                Found::Packed(_) => name.packed(),
            });
            bytes += fs::metadata(path).map_or(0, |file| footprint(file.len()));
        }
        let mut held = self.held();
        held.freed += u64::from(bytes < held.bytes);
        held.bytes = bytes;
        Ok(())
    }

    /// In any order.
    fn files(&self) -> io::Result<Vec<Found>> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.directory)? {
            files.extend(file?.file_name().to_str().and_then(Found::of));
        }
        Ok(files)
    }

    fn lock_files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For uploads.
#[cfg(feature = "aws")]
impl Spool {
    /// The oldest packed files, at most `count`.
    pub(super) fn oldest(&self, count: usize) -> io::Result<Vec<Name>> {
        let packed = self.files()?.into_iter().filter_map(|file| match file {
            Found::Packed(name) => Some(name),
            Found::Plain(_) | Found::Part(_) => None,
        });
        let mut packed: Vec<Name> = packed.collect();
        packed.sort_unstable_by(|one, other| one.age().cmp(other.age()));
        packed.truncate(count);
        Ok(packed)
    }

    pub(super) fn read(&self, name: &Name) -> io::Result<Vec<u8>> {
        fs::read(self.directory.join(name.packed()))
    }

    pub(super) fn remove(&self, name: &Name) -> io::Result<()> {
        let path = self.directory.join(name.packed());
        let _files = self.lock_files();
        let length = fs::metadata(&path)?.len();
        fs::remove_file(&path)?;
        let mut held = self.held();
        held.bytes = held.bytes.saturating_sub(footprint(length));
        held.freed += 1;
        Ok(())
    }
}

/// Whether lines are dropped because the spool is full.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    full: Option<Full>,
}

/// Lines are being dropped.
#[derive(Debug)]
struct Full {
    entries: u64,
    /// [`Held::freed`] at the begin.
    freed: u64,
    measured: Instant,
}

impl Fullness {
    /// Whether `bytes` of lines are to be dropped. Once the spool is full, lines are dropped until a file has left it and a
    /// quarter is free: the stored log has one gap instead of many, and the drop is not logged for every line. `condition`
    /// follows it.
    pub(super) fn is_full(&mut self, spool: &Spool, bytes: usize, condition: &Condition) -> bool {
        let Some(full) = &mut self.full else {
            if spool.has_room_for(bytes) {
                return false;
            }
            let said = "the spool of the operational log is full: entries are lost until the oldest are uploaded";
            warn!("{said}");
            condition.fails(said);
            self.full = Some(Full {
                entries: 0,
                freed: spool.holds().freed,
                measured: Instant::now(),
            });
            return true;
        };
        if full.measured.elapsed() >= MEASURE {
            full.measured = Instant::now();
            // If it cannot be measured, it counts as full.
            let _ = spool.measure();
        }
        let freed = spool.holds().freed > full.freed && spool.is_relieved();
        if freed && spool.has_room_for(bytes) {
            let lost = full.entries;
            info!(lost, "the spool of the operational log has room again");
            self.full = None;
            condition.works();
            return false;
        }
        true
    }

    /// Counts entries that were dropped, if the spool is full.
    pub(super) fn lost(&mut self, entries: u64) {
        if let Some(full) = &mut self.full {
            full.entries += entries;
        }
    }
}

impl Archive {
    /// Archives a packed file, and removes the oldest if there are too many.
    fn take(&self, from: &Path, name: &Name) -> io::Result<()> {
        let day = self.directory.join(name.day());
        make_directory(&day)?;
        move_file(from, &day, &name.stem())?;
        if let Err(error) = self.prune() {
            warn!(%error, "cannot remove old files of the operational log");
        }
        Ok(())
    }

    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for day in fs::read_dir(&self.directory)? {
            let day = day?;
            if !day.file_name().as_encoded_bytes().starts_with(b"dt=") {
                continue;
            }
            for file in fs::read_dir(day.path())? {
                let file = file?;
                let name = file.file_name();
                if let Some(age) = name.to_str().and_then(archived_age) {
                    files.push((day.file_name(), age.to_owned(), file.path()));
                }
            }
        }
        files.sort_unstable();
        let too_many = files.len().saturating_sub(self.files_max);
        for (_, _, path) in &files[..too_many] {
            fs::remove_file(path)?;
            if let Some(day) = path.parent() {
                // Only an empty one can be removed.
                let _ = fs::remove_dir(day);
            }
        }
        Ok(())
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    directory::create(path)
}

/// Whether files can be created there. A full disk is not an error: it may not stay full.
fn check_writable(directory: &Path) -> io::Result<()> {
    let path = directory.join("writable");
    let mut new = OpenOptions::new();
    match new.write(true).create(true).mode(0o600).open(&path) {
        Ok(_) => fs::remove_file(&path),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        Err(error) => Err(error),
    }
}

/// Moves a flushed file to its final name, and flushes the directory.
fn move_file(from: &Path, directory: &Path, name: &str) -> io::Result<()> {
    fs::rename(from, directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// Compresses the first `length` bytes into a file, and flushes it; returns its length.
fn compress(lines: &mut File, length: u64, to: &Path) -> io::Result<u64> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)?;
    let mut packed = GzEncoder::new(file, Compression::default());
    let copied = io::copy(&mut lines.take(length), &mut packed)?;
    if copied < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let file = packed.finish()?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Length of a file's whole lines, in bytes. A torn line is left out: readers of the file could not parse it.
fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(LOOK);
        block.resize(usize::try_from(end - begin).unwrap_or_default(), 0);
        file.read_exact_at(&mut block, begin)?;
        if let Some(last) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}
