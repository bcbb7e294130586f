//! The database file as the checks read it, without the engine: its header and its pages.

use std::fs::{File as Bytes, OpenOptions};
use std::io;
use std::path::Path;

use super::connection::File;
use super::sums::{Head, Sums, sum};
use super::wal;

/// Offsets in the header: page size and application id.
const PAGE_SIZE_AT: u64 = 16;
const APPLICATION_AT: u64 = 68;
/// Every desk's application id begins with "ODY".
const OURS: i32 = 0x4F44_5900;
/// Marked every desk's files before each had its own id: "ODYS".
pub(super) const ANY_DESK: i32 = application(b'S');

/// The application id of the desk with this letter, which marks its files: a desk does not open another one's.
pub const fn application(desk: u8) -> i32 {
    // Lossless; `From` is not const.
    OURS | desk as i32
}

/// Opens a file for reading, and for writing if permitted: only then does an overlay file system show the file that is written
/// to.
pub(super) fn open(path: &Path) -> io::Result<Option<Bytes>> {
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
pub(super) fn is_of_another(database: &Bytes, application: i32) -> io::Result<bool> {
    let mut found = [0; 4];
    if !wal::read_at(database, &mut found, APPLICATION_AT)? {
        return Ok(false);
    }
    let found = i32::from_be_bytes(found);
    Ok(found != application && found & !0xFF == OURS && found != ANY_DESK)
}

pub(super) fn page_size(database: &Bytes) -> io::Result<u32> {
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
pub(super) fn create(file: &File, database: &Bytes, head: Head) -> io::Result<Sums> {
    let mut bytes = vec![0; head.page_size as usize];
    let pages = (1..=head.pages).map(|page| sum_of(database, page, &mut bytes));
    Sums::create(&file.sums(), head, pages)
}

/// The checksum of a page of the database file; a page behind its end counts as zeros.
pub(super) fn sum_of(database: &Bytes, page: u32, bytes: &mut [u8]) -> io::Result<u64> {
    bytes.fill(0);
    read_up_to(database, bytes, u64::from(page - 1) * bytes.len() as u64)?;
    Ok(sum(bytes))
}

/// Reads until the buffer is full or the file ends; returns the number of bytes.
pub(super) fn read_up_to(file: &Bytes, bytes: &mut [u8], at: u64) -> io::Result<usize> {
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
