//! Where the servers keep their data: which file system it is, and what it takes to have something kept there. A comparison
//! of what is durable says nothing without that.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::table::Spread;

/// As much as a database writes at the least.
const BLOCK: [u8; 4096] = [7; 4096];
/// The reported value is the median of this many flushes.
const FLUSHES: u32 = 200;

/// The file system below a directory, and the price of a flush in it.
pub(crate) fn describe(dir: &Path) -> Result<String> {
    let file = tempfile::tempfile_in(dir);
    let mut file = file.with_context(|| format!("making a file in {}", dir.display()))?;
    let appended = flush(&mut file, false)?;
    let in_place = flush(&mut file, true)?;
    Ok(format!(
        "the data are on {}, where a write of 4 KiB and its fdatasync take {appended:.0} µs at the end of a file and \
         {in_place:.0} µs within it (medians of {FLUSHES})",
        file_system(&rustix::fs::fstatfs(&file)?)
    ))
}

/// Microseconds for a block and its flush, at the file's end or over what is there.
fn flush(file: &mut File, in_place: bool) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..FLUSHES {
        let from = if in_place {
            SeekFrom::Start(0)
        } else {
            SeekFrom::End(0)
        };
        file.seek(from)?;
        let begin = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        took.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::new(&took).median())
}

/// The name of a file system by its magic number (statfs(2)).
fn file_system(found: &rustix::fs::StatFs) -> String {
    // The field is signed on some machines; the number has 32 bits on all of them.
    match u64::try_from(found.f_type).unwrap_or_default() & 0xffff_ffff {
        // Three generations with one number.
        0xef53 => "ext4".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x794c_7630 => "overlayfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        0xf2f5_2010 => "f2fs".to_owned(),
        0x6969 => "nfs".to_owned(),
        other => format!("a file system of the type {other:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_files_are_on_none_that_keeps_anything() {
        let proc = rustix::fs::statfs("/proc").unwrap();
        assert_eq!(file_system(&proc), "a file system of the type 0x9fa0");
    }

    #[test]
    fn a_directory_is_described_by_its_flushes() {
        let dir = tempfile::tempdir().unwrap();
        let description = describe(dir.path()).unwrap();
        assert!(description.contains("fdatasync"), "{description}");
    }
}
