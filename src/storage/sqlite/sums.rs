//! The checksum file next to a database, `deliveries.db-sums`: how far the WAL was acknowledged, and a checksum of each page of
//! the database file.
//!
//! ```text
//!   0    head, 64 bytes: magic, application id, page size, pages, state of the WAL, its last commit, checksum of the head
//!   512  a checksum of 8 bytes for each page of the database file, in their order
//! ```
//!
//! The head has a sector of its own, so that a power cut leaves the old one or the new one. Checksums are SipHash-1-3 with
//! the key 0; numbers are little-endian.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use siphasher::sip::SipHasher13;

use super::wal::{Mark, Salts, read_at};
use crate::storage::directory::sync_parent;

const MAGIC: [u8; 8] = *b"ODYSUMS1";
/// The head's length in bytes, its checksum included.
const HEAD: usize = 64;
/// Offset of the pages' checksums: behind a sector.
const PAGES_AT: u64 = 512;
/// Flag in the WAL's state.
const DAMAGED: u32 = 4;

/// The state of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalState {
    /// The database was closed: there is no WAL.
    Closed,
    /// The database is being opened: no commit of a new WAL was acknowledged.
    Opening,
    Open {
        /// The last commit that may have been acknowledged.
        mark: Mark,
        /// Everything up to `mark` is in the database file and in the pages' checksums.
        copied: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) application: i32,
    /// In bytes.
    pub(super) page_size: u32,
    /// Pages that have a checksum: the whole database file at the last complete checkpoint.
    pub(super) pages: u32,
    pub(super) wal: WalState,
    /// A page that is in the WAL was found damaged in the file, possibly before it was changed: the WAL must not be
    /// checkpointed over it, by the next process neither.
    pub(super) damaged: bool,
    /// Commits since the file was created.
    pub(super) commits: u64,
}

impl WalState {
    /// Whether another program started the WAL that has this commit. The engine's next WAL has the next salt, and starts after
    /// a full checkpoint.
    pub(super) fn is_overtaken_by(&self, mark: &Mark) -> bool {
        match self {
            Self::Open { mark: last, copied } => {
                last.salts != mark.salts && !(*copied && follows(last.salts, mark.salts))
            }
            Self::Closed | Self::Opening => false,
        }
    }
}

/// Whether the engine started the WAL with salts `after` right after the one with salts `before`.
pub(super) fn follows(before: Salts, after: Salts) -> bool {
    after[0] == before[0].wrapping_add(1)
}

/// A checksum file that is open.
#[derive(Debug)]
pub(super) struct Sums {
    file: File,
    pub(super) head: Head,
}

/// Checksum of a page or of the head.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

impl Sums {
    /// None if the file does not exist; [`io::ErrorKind::InvalidData`] if its head is damaged.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let head = Head::of(&file)?.ok_or_else(|| {
            let detail = "the head of its `-sums` file is damaged";
            io::Error::new(io::ErrorKind::InvalidData, detail)
        })?;
        Ok(Some(Self { file, head }))
    }

    /// Whether the file's head is the one that was written last.
    pub(super) fn has_head(&self) -> io::Result<bool> {
        Ok(Head::of(&self.file)? == Some(self.head))
    }

    /// Creates or replaces the file; returns once it is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn create(
        path: &Path,
        head: Head,
        pages: impl Iterator<Item = io::Result<u64>>,
    ) -> io::Result<Self> {
        let new = super::connection::with_suffix(path, "-new");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let mut file = options.mode(0o600).open(&new)?;
        file.write_all(&head.bytes())?;
        file.seek(SeekFrom::Start(PAGES_AT))?;
        let mut writer = BufWriter::new(file);
        for sum in pages {
            writer.write_all(&sum?.to_le_bytes())?;
        }
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_parent(path)?;
        Ok(Self { file, head })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Replaces the head: one write within one page of the page cache, which the end of the process cannot interrupt.
    pub(super) fn write_head(&mut self, head: Head) -> io::Result<()> {
        self.file.write_all_at(&head.bytes(), 0)?;
        self.head = head;
        Ok(())
    }

    /// Replaces the checksums of these pages, which are sorted.
    pub(super) fn write_pages(&self, pages: &[(u32, u64)]) -> io::Result<()> {
        let follows = |a: &(u32, u64), b: &(u32, u64)| a.0 + 1 == b.0;
        for run in pages.chunk_by(follows) {
            let bytes: Vec<u8> = run.iter().flat_map(|(_, sum)| sum.to_le_bytes()).collect();
            self.file.write_all_at(&bytes, offset(run[0].0))?;
        }
        Ok(())
    }

    /// The checksums of `count` pages from `first` on. None if the file is shorter.
    pub(super) fn pages(&self, first: u32, count: u32) -> io::Result<Option<Vec<u64>>> {
        let mut bytes = vec![0; 8 * count as usize];
        if !read_at(&self.file, &mut bytes, offset(first))? {
            return Ok(None);
        }
        Ok(Some(bytes.chunks_exact(8).map(number).collect()))
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Head {
    fn bytes(self) -> [u8; HEAD] {
        let (state, mark) = match self.wal {
            WalState::Closed => (0, None),
            WalState::Opening => (1, None),
            WalState::Open { mark, copied } => (2 + u32::from(copied), Some(mark)),
        };
        let mark = mark.unwrap_or(Mark {
            salts: [0, 0],
            frames: 0,
            checksum: [0, 0],
        });
        let words = [
            self.application.cast_unsigned(),
            self.page_size,
            self.pages,
            state + if self.damaged { DAMAGED } else { 0 },
            mark.salts[0],
            mark.salts[1],
            mark.frames,
            mark.checksum[0],
            mark.checksum[1],
        ];
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&MAGIC);
        for (place, word) in bytes[8..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[48..56].copy_from_slice(&self.commits.to_le_bytes());
        let sum = sum(&bytes[..HEAD - 8]);
        bytes[HEAD - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// None if the head is damaged.
    fn of(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEAD];
        let head = read_at(file, &mut bytes, 0)?.then(|| Self::read(&bytes));
        Ok(head.flatten())
    }

    /// None if it is damaged.
    fn read(bytes: &[u8; HEAD]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = &bytes[8 + 4 * at..12 + 4 * at];
            u32::from_le_bytes(bytes.try_into().unwrap_or_default())
        };
        let mark = Mark {
            salts: [word(4), word(5)],
            frames: word(6),
            checksum: [word(7), word(8)],
        };
        let wal = match word(3) & !DAMAGED {
            0 => WalState::Closed,
            1 => WalState::Opening,
            state @ (2 | 3) => WalState::Open {
                mark,
                copied: state == 3,
            },
            _ => return None,
        };
        let head = Self {
            application: word(0).cast_signed(),
            page_size: word(1),
            pages: word(2),
            wal,
            damaged: word(3) & DAMAGED != 0,
            commits: number(&bytes[48..56]),
        };
        (head.bytes() == *bytes).then_some(head)
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap_or_default())
}

fn offset(page: u32) -> u64 {
    PAGES_AT + 8 * u64::from(page.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_no_bit_of_it_flips_unseen() {
        let mark = Mark {
            salts: [1, u32::MAX],
            frames: 7,
            checksum: [3, 4],
        };
        for (wal, damaged) in [
            WalState::Closed,
            WalState::Opening,
            WalState::Open {
                mark,
                copied: false,
            },
            WalState::Open { mark, copied: true },
        ]
        .into_iter()
        .flat_map(|wal| [(wal, false), (wal, true)])
        {
            let head = Head {
                application: -5,
                page_size: 4096,
                pages: 99,
                wal,
                damaged,
                commits: 1 << 40,
            };
            let bytes = head.bytes();
            assert_eq!(Head::read(&bytes), Some(head));
            for bit in 0..8 * HEAD {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Head::read(&flipped), None, "bit {bit}");
            }
        }
    }
}
