//! The WAL as bytes: how far it is valid, and what is in it. Read without the engine, which takes any premature end for the
//! end.
//!
//! The format is `SQLite`'s (<https://www.sqlite.org/fileformat2.html#walformat>): a header of 32 bytes with two salts, then
//! frames: 24 bytes of header with the page's number, the salts and a checksum over everything so far, and the page.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes before the first frame, and before each page.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The last bit of the first four bytes is the byte order of the checksums.
const MAGIC: u32 = 0x377F_0682;
/// Permitted page sizes, in bytes.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;

/// Frames per read: a quarter of a megabyte.
const FRAMES_AT_ONCE: u32 = 64;

/// Differs between any two WALs of one file.
pub(super) type Salts = [u32; 2];
/// A running checksum.
pub(super) type Checksum = [u32; 2];

/// A commit in the WAL: its last frame, and the checksum of all frames up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) salts: Salts,
    /// Frames from the WAL's beginning to the end of the commit.
    pub(super) frames: u32,
    pub(super) checksum: Checksum,
}

/// The valid part of a WAL: its frames up to the last commit before the first invalid frame.
#[derive(Debug)]
pub(super) struct Wal {
    pub(super) salts: Salts,
    page_size: u32,
    /// By frame; the first has number 1.
    checksums: Vec<Checksum>,
    /// The database's length after the last commit, in pages.
    pub(super) pages: u32,
    pub(super) last_frames: HashMap<u32, u32>,
}

impl Wal {
    /// None if it has no commit: it is empty, or its beginning is damaged.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        if !read_at(file, &mut header, 0)? {
            return Ok(None);
        }
        let Some((salts, page_size, mut sum)) = begin(&header) else {
            return Ok(None);
        };
        let mut wal = Self {
            salts,
            page_size,
            checksums: Vec::new(),
            pages: 0,
            last_frames: HashMap::new(),
        };
        let (mut checksums, mut pages) = (Vec::new(), Vec::new());
        let mut frame = vec![0; FRAME_HEADER + page_size as usize];
        while let Ok(number) = u32::try_from(wal.checksums.len() + checksums.len() + 1) {
            if !read_at(file, &mut frame, offset(page_size, number))? {
                break;
            }
            let page = word(&frame, 0);
            let of_this_log = [word(&frame, 2), word(&frame, 3)] == salts;
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEADER..]);
            if page == 0 || !of_this_log || sum.value != [word(&frame, 4), word(&frame, 5)] {
                break;
            }
            checksums.push(sum.value);
            pages.push((page, number));
            let commits = word(&frame, 1);
            if commits != 0 {
                wal.pages = commits;
                wal.checksums.append(&mut checksums);
                wal.last_frames.extend(pages.drain(..));
            }
        }
        Ok(Some(wal).filter(|wal| wal.pages != 0))
    }

    /// Its last commit.
    pub(super) fn end(&self) -> Mark {
        Mark {
            salts: self.salts,
            frames: u32::try_from(self.checksums.len()).unwrap_or(u32::MAX),
            checksum: self.checksums.last().copied().unwrap_or_default(),
        }
    }

    /// Whether all frames up to this mark are there, unchanged.
    pub(super) fn reaches(&self, mark: &Mark) -> bool {
        let at = (mark.frames as usize).checked_sub(1);
        let found = at.and_then(|at| self.checksums.get(at));
        self.salts == mark.salts && found == Some(&mark.checksum)
    }

    pub(super) fn page_size(&self) -> u32 {
        self.page_size
    }
}

/// The commit that this frame ends, and the database's length then, in pages. The frame must be valid.
///
/// # Errors
/// If it cannot be read, or ends no commit.
pub(super) fn commit(file: &File, page_size: u32, frames: u32) -> io::Result<(Mark, u32)> {
    let mut header = [0; FRAME_HEADER];
    file.read_exact_at(&mut header, offset(page_size, frames))?;
    let pages = word(&header, 1);
    if pages == 0 {
        return Err(io::Error::other("the WAL does not end with a commit"));
    }
    let mark = Mark {
        salts: [word(&header, 2), word(&header, 3)],
        frames,
        checksum: [word(&header, 4), word(&header, 5)],
    };
    Ok((mark, pages))
}

/// The last frame of each page in these frames, which must be valid.
///
/// # Errors
/// If they cannot be read.
pub(super) fn last_frames(
    file: &File,
    page_size: u32,
    frames: u32,
) -> io::Result<HashMap<u32, u32>> {
    let mut found = HashMap::new();
    each(file, page_size, frames, |frame, page, _, _| {
        found.insert(page, frame);
    })?;
    Ok(found)
}

/// Calls back for each of these frames with its number, its page's number, the database's length in pages if it ends a commit,
/// or 0, and the page. The frames must be valid.
///
/// # Errors
/// If they cannot be read.
pub(super) fn each(
    file: &File,
    page_size: u32,
    frames: u32,
    mut see: impl FnMut(u32, u32, u32, &[u8]),
) -> io::Result<()> {
    let length = FRAME_HEADER + page_size as usize;
    let mut bytes = Vec::new();
    let mut first = 1;
    // In blocks: a call per header costs more than the pages between them.
    while first <= frames {
        let count = FRAMES_AT_ONCE.min(frames - first + 1);
        bytes.resize(count as usize * length, 0);
        file.read_exact_at(&mut bytes, offset(page_size, first))?;
        for (frame, bytes) in (first..).zip(bytes.chunks_exact(length)) {
            see(
                frame,
                word(bytes, 0),
                word(bytes, 1),
                &bytes[FRAME_HEADER..],
            );
        }
        first += count;
    }
    Ok(())
}

///
/// # Errors
/// If it cannot be read.
pub(super) fn page(file: &File, frame: u32, page: &mut [u8]) -> io::Result<()> {
    let page_size = u32::try_from(page.len()).unwrap_or(u32::MAX);
    file.read_exact_at(page, offset(page_size, frame) + FRAME_HEADER as u64)
}

fn offset(page_size: u32, frame: u32) -> u64 {
    let before = u64::from(frame.saturating_sub(1));
    HEADER as u64 + before * (FRAME_HEADER as u64 + u64::from(page_size))
}

/// What a header says; None if it is damaged.
fn begin(header: &[u8; HEADER]) -> Option<(Salts, u32, Sum)> {
    let magic = word(header, 0);
    let page_size = word(header, 2);
    let mut sum = Sum {
        big_endian: magic & 1 == 1,
        value: [0, 0],
    };
    sum.add(&header[..24]);
    let is_whole = magic & !1 == MAGIC
        && page_size.is_power_of_two()
        && PAGE_SIZES.contains(&page_size)
        && sum.value == [word(header, 6), word(header, 7)];
    is_whole.then(|| ([word(header, 4), word(header, 5)], page_size, sum))
}

/// The engine's checksum.
struct Sum {
    big_endian: bool,
    value: Checksum,
}

impl Sum {
    /// Adds bytes; their count must be a multiple of eight.
    fn add(&mut self, bytes: &[u8]) {
        let [mut first, mut second] = self.value;
        for pair in bytes.chunks_exact(8) {
            let (a, b) = pair.split_at(4);
            first = first.wrapping_add(self.word(a)).wrapping_add(second);
            second = second.wrapping_add(self.word(b)).wrapping_add(first);
        }
        self.value = [first, second];
    }

    fn word(&self, bytes: &[u8]) -> u32 {
        let bytes = bytes.try_into().unwrap_or_default();
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}

/// The `at`th 32-bit word.
fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(4 * at..4 * at + 4).unwrap_or_default();
    u32::from_be_bytes(bytes.try_into().unwrap_or_default())
}

/// Fills `bytes` from this offset. False if the file ends before.
pub(super) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
