//! A log writer that never blocks its caller: a thread writes, and lines beyond its queue are dropped and counted.
//!
//! Standard error may be a pipe whose reader has stopped. A write to it blocks once the pipe is full (64 KiB on Linux), and a
//! blocked thread of the runtime stops every connection that it serves.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tracing::warn;

/// Bytes in the queue: about 3,000 lines.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Overhead of a queued line: the message and its allocation.
const LINE_OVERHEAD_BYTES: usize = 64;

enum Message {
    Line(Box<[u8]>),
    /// Answered once all lines before it are written.
    Flush(Sender<()>),
}

/// The queue; shared by all threads that log.
#[derive(Debug)]
pub(super) struct Lossy {
    messages: Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

impl Lossy {
    /// Starts the thread that writes to `to`.
    pub(super) fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let (messages, received) = channel();
        let counts = Arc::new(Counts::default());
        let lossy = Self {
            messages,
            counts: Arc::clone(&counts),
        };
        let thread = thread::Builder::new().name("write log".to_owned());
        thread.spawn(move || write_all(&received, to, &counts))?;
        Ok(lossy)
    }

    /// Dropped lines.
    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Returns once all lines so far are written, or after `patience`: the reader may have stopped.
    pub(super) fn flush(&self, patience: Duration) {
        let (done, flushed) = channel();
        if self.messages.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(patience);
        }
    }
}

impl Write for &Lossy {
    /// Queues a whole line, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let counts = &self.counts;
        let cost = line.len() + LINE_OVERHEAD_BYTES;
        let waiting = counts.waiting_bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        let fits = waiting <= WAITING_BYTES_MAX;
        if !fits || self.messages.send(Message::Line(line.into())).is_err() {
            counts.waiting_bytes.fetch_sub(cost, Ordering::Relaxed);
            counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(messages: &Receiver<Message>, mut to: impl Write, counts: &Counts) {
    let mut reported = 0;
    for message in messages {
        let line = match message {
            Message::Line(line) => line,
            Message::Flush(done) => {
                let _ = to.flush();
                // The caller may have timed out.
                let _ = done.send(());
                continue;
            }
        };
        let written = to.write_all(&line);
        let cost = line.len() + LINE_OVERHEAD_BYTES;
        let waiting = counts.waiting_bytes.fetch_sub(cost, Ordering::Relaxed) - cost;
        if written.is_err() {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let lost = counts.lost.load(Ordering::Relaxed);
        // At half of the queue, so that the report itself is not dropped.
        if lost > reported && waiting <= WAITING_BYTES_MAX / 2 {
            warn!(
                lines = lost - reported,
                lines_total = lost,
                "log lines were lost: standard error was not read fast enough"
            );
            reported = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Pipe(Arc<End>);

    #[derive(Debug, Default)]
    struct End {
        state: Mutex<(bool, Vec<u8>)>,
        read: Condvar,
    }

    impl Pipe {
        fn read(&self) {
            self.0.state.lock().unwrap().0 = true;
            self.0.read.notify_all();
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.state.lock().unwrap();
            let mut state = self.0.read.wait_while(state, |(read, _)| !*read).unwrap();
            state.1.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const FOREVER: Duration = Duration::from_secs(60);

    #[test]
    fn lines_that_do_not_fit_are_lost_and_counted_and_the_others_arrive_in_order() {
        let pipe = Pipe::default();
        let lossy = Lossy::start(pipe.clone()).unwrap();
        let line = vec![b'x'; WAITING_BYTES_MAX / 4];
        for _ in 0..10 {
            assert_eq!((&lossy).write(&line).unwrap(), line.len());
        }
        // Three fit with their overhead, whether or not the thread has taken the first: it is not written yet.
        assert_eq!(lossy.lost(), 7);
        // The pipe is not read: this returns all the same.
        lossy.flush(Duration::from_millis(1));
        pipe.read();
        lossy.flush(FOREVER);
        (&lossy).write_all(b"the last\n").unwrap();
        lossy.flush(FOREVER);
        let written = pipe.0.state.lock().unwrap().1.clone();
        assert_eq!(written.len(), 3 * line.len() + 9);
        assert!(written.ends_with(b"the last\n"));
        assert_eq!(lossy.lost(), 7);
    }

    #[test]
    fn what_the_system_refuses_to_write_counts_as_lost() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lossy = Lossy::start(Gone).unwrap();
        (&lossy).write_all(b"a line\n").unwrap();
        lossy.flush(FOREVER);
        assert_eq!(lossy.lost(), 1);
    }
}
