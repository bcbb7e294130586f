//! Reads files again when they change: tokens and certificates are replaced while the server runs.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::storage::Condition;

/// How often files are looked at: a revoked token is rejected within a second.
const EVERY: Duration = Duration::from_millis(250);

/// Distinguishes one content of a file from another: times of the changes of content and permissions, size and inode. None if it
/// cannot be seen.
type Stamp = Option<[i64; 6]>;

/// Reads the files, and puts them in force.
type Reload = dyn Fn() -> anyhow::Result<()> + Send + Sync;

/// Files that are in force together.
pub struct Watched {
    name: &'static str,
    files: Vec<PathBuf>,
    reload: Box<Reload>,
    seen: Mutex<Vec<Stamp>>,
    condition: Condition,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Watched {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// If `reload` refuses them.
    pub fn open(
        name: &'static str,
        files: Vec<PathBuf>,
        reload: impl Fn() -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Arc<Self>> {
        let watched = Self {
            name,
            seen: Mutex::new(stamps(&files)),
            files,
            reload: Box::new(reload),
            condition: Condition::default(),
        };
        (watched.reload)()?;
        Ok(Arc::new(watched))
    }

    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Reads the files if they have changed, or could not be read the last time. If they are refused, what was in force stays in
    /// force.
    pub fn look(&self) {
        self.read_if(|is_changed| is_changed || !self.condition.is_healthy());
    }

    /// Reads the files, as [`Watched::look`] does, whether or not they have changed.
    pub fn read_again(&self) {
        self.read_if(|_| true);
    }

    fn read_if(&self, is_due: impl FnOnce(bool) -> bool) {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before it is read: a change while it is read is seen the next time.
        if is_due(*seen != now) {
            *seen = now;
            self.read();
        }
    }

    fn read(&self) {
        let reloaded = catch_unwind(AssertUnwindSafe(|| (self.reload)()));
        match reloaded.unwrap_or_else(|_| Err(anyhow::anyhow!("reading them panicked"))) {
            Ok(()) => {
                self.condition.works();
                info!("{} were read again", self.name);
            }
            Err(error) => {
                let reason = format!("{error:#}");
                if self.condition.fails_because(&reason) {
                    error!(
                        error = reason,
                        "{} were not read again: the old ones stay in force", self.name
                    );
                }
            }
        }
    }
}

/// Looks at all of them, for as long as the server runs.
pub async fn keep_looking(all: Vec<Arc<Watched>>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let all = all.clone();
        // Files may be on a file system that hangs.
        let looking = tokio::task::spawn_blocking(move || all.iter().for_each(|one| one.look()));
        // It fails only while the runtime shuts down: a panic is caught where it is read.
        drop(looking.await);
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let data = file.metadata().ok()?;
        Some([
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
            data.size().cast_signed(),
            data.ino().cast_signed(),
        ])
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_refused_one_is_reported_until_it_is_right() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "good").unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let read = file.clone();
        let watched = Watched::open("files", vec![file.clone()], move || {
            counted.fetch_add(1, Ordering::Relaxed);
            if std::fs::read_to_string(&read)? != "good" {
                bail!("it is not good");
            }
            Ok(())
        })
        .unwrap();
        watched.look();
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        watched.read_again();
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        // Refused ones are read again each time, as a read may fail for a moment; good ones are not.
        for (content, reason, read) in [
            ("bad content", Some("it is not good"), 4),
            ("good", None, 5),
        ] {
            std::fs::write(&file, content).unwrap();
            watched.look();
            watched.look();
            assert_eq!(watched.condition().state().down.as_deref(), reason);
            assert_eq!(reads.load(Ordering::Relaxed), read);
        }
        std::fs::remove_file(&file).unwrap();
        watched.look();
        assert!(!watched.condition().is_healthy());
        assert!(Watched::open("files", Vec::new(), || bail!("no")).is_err());
    }
}
