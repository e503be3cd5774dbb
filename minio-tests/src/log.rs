//! What a process writes to standard error: kept for tests that wait for a line, and shown when a test
//! fails.
//!
//! The whole log is also in a file in the system's directory for temporary files. It stays there after a
//! failure, and is deleted after a success.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock;
use crate::limits::LOG_TAIL_LINES;

/// Numbers the logs of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

pub struct ProcessLog {
    name: String,
    path: PathBuf,
    lines: Arc<Lines>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    grew: Condvar,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, output: impl Read, mut file: File) {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            // The copy on disk is a convenience: the tests go on without it.
            let _ = writeln!(file, "{line}");
            self.lock().push(line);
            self.grew.notify_all();
        }
    }
}

impl ProcessLog {
    /// Follows `output` to its end.
    pub fn follow(name: &str, output: impl Read + Send + 'static) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("shoal-tests-{}-{number}-{name}.log", std::process::id()));
        let file = File::create(&path).expect("a file for the log");
        let lines = Arc::<Lines>::default();
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || kept.read(output, file));
        Self { name: name.to_owned(), path, lines, reader: Some(reader) }
    }

    /// How many lines there are so far.
    pub fn len(&self) -> usize {
        self.lines.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lines so far; after [`ProcessLog::finish`], all.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// Waits for a line that `is_it`, looking at those from number `from` on.
    pub fn wait_for(&self, from: usize, within: Duration, is_it: impl Fn(&str) -> bool) -> Option<String> {
        let started = clock::now();
        let mut next = from;
        let mut lines = self.lines.lock();
        loop {
            if let Some(found) = lines.iter().skip(next).find(|line| is_it(line)) {
                return Some(found.clone());
            }
            next = next.max(lines.len());
            let left = within.checked_sub(started.elapsed())?;
            lines = self.lines.grew.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until all that the process wrote has been read. The process has ended.
    pub fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of a log panicked");
        }
    }

    /// The last lines, for a message.
    pub fn tail(&self) -> String {
        let lines = self.lines.lock();
        let tail = lines.iter().skip(lines.len().saturating_sub(LOG_TAIL_LINES));
        tail.map(|line| format!("  {line}\n")).collect()
    }
}

impl Drop for ProcessLog {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the end of {}'s log, which is in {}\n{}---", self.name, self.path.display(), self.tail());
        } else {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_waited_for_and_all_lines_are_there_at_the_end() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut log = ProcessLog::follow("test", reader);
        let second = Duration::from_secs(10);
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(b"one\ntwo\nbroken \xff\n").unwrap());
            assert_eq!(log.wait_for(0, second, |line| line.contains("tw")).as_deref(), Some("two"));
        });
        assert_eq!(log.wait_for(2, Duration::ZERO, |line| line == "two"), None, "it looks from there on");
        drop(writer);
        log.finish();
        assert_eq!(log.lines(), ["one", "two", "broken \u{fffd}"]);
    }
}
