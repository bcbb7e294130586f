use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_getfd};

use super::*;

#[test]
fn it_is_made_with_its_parents_for_nobody_else() {
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("a/b");
    let directory = DataDirectory::open(&path).unwrap();
    assert_eq!(directory.path(), path);
    assert_eq!(directory.file("x.db"), path.join("x.db"));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_second_is_told_who_the_first_is_until_it_is_gone() {
    let around = tempfile::tempdir().unwrap();
    let first = DataDirectory::open(around.path()).unwrap();
    for _ in 0..2 {
        let refused = DataDirectory::open(around.path()).unwrap_err();
        let said = refused.to_string();
        let process = format!("is in use by process {} on ", std::process::id());
        assert!(said.contains(&process), "{said}");
        assert!(said.ends_with("Z; two servers cannot share one"), "{said}");
        assert!(matches!(refused, DirectoryError::InUse { .. }));
    }
    drop(first);
    DataDirectory::open(around.path()).unwrap();
}

#[test]
fn words_that_nobody_wrote_are_not_repeated() {
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join(LOCK);
    let _first = DataDirectory::open(around.path()).unwrap();
    for words in ["", "\n", "\x1b[31mred", &"a\0".repeat(1 << 20)] {
        std::fs::write(&path, words).unwrap();
        let said = DataDirectory::open(around.path()).unwrap_err().to_string();
        assert!(said.contains("in use by another process;"), "{said}");
    }
}

#[test]
fn a_child_does_not_inherit_the_lock() {
    let around = tempfile::tempdir().unwrap();
    let Locked::Ours(file) = lock(&around.path().join(LOCK)).unwrap() else {
        panic!("nobody else has it");
    };
    assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
}

#[test]
fn what_cannot_be_had_is_named_with_the_reason() {
    let around = tempfile::tempdir().unwrap();
    let file = around.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = DataDirectory::open(&path).unwrap_err();
        assert!(matches!(error, DirectoryError::NotCreatable { .. }));
        let said = error.to_string();
        let start = format!("cannot create the data directory `{}`: ", path.display());
        assert!(said.starts_with(&start), "{said}");
    }
    // Permissions do not stop root; a directory in the lock's place does.
    std::fs::create_dir(around.path().join(LOCK)).unwrap();
    let error = DataDirectory::open(around.path()).unwrap_err();
    assert!(matches!(error, DirectoryError::NotWritable { .. }));
}

const HOLDER: &str = "storage::directory::tests::holds_a_directory_until_it_is_killed";
const HELD: &str = "ODYSSEY_TEST_HOLDS";

/// Not a test by itself: the other process of the next one.
#[test]
#[ignore = "the other process of the test below"]
fn holds_a_directory_until_it_is_killed() {
    if let Some(path) = std::env::var_os(HELD) {
        let _held = DataDirectory::open(path).unwrap();
        std::thread::sleep(Duration::from_mins(2));
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_kernel_releases_it_when_its_holder_is_killed() {
    let around = tempfile::tempdir().unwrap();
    let holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", HOLDER])
        .env(HELD, around.path())
        .stdout(Stdio::null())
        .spawn();
    let holder = Killed(holder.unwrap());
    let process = format!("process {} on ", holder.0.id());
    let given_up = Instant::now() + Duration::from_secs(30);
    loop {
        // Too early, it would be taken from the one that is to have it.
        let lock = std::fs::read_to_string(around.path().join(LOCK)).unwrap_or_default();
        if lock.starts_with(&process) {
            break;
        }
        assert!(Instant::now() < given_up, "the holder never came");
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = DataDirectory::open(around.path()).unwrap_err().to_string();
    assert!(said.contains(&process), "{said}");
    drop(holder);
    DataDirectory::open(around.path()).unwrap();
}
