//! How far something is, in one line of a terminal that is written over and over. Nothing is printed elsewhere.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Where progress is told.
pub struct Progress {
    is_shown: bool,
    last: RefCell<String>,
    width: Cell<usize>,
}

impl Progress {
    /// Tells it on standard error, if that is a terminal.
    pub fn to_terminal() -> Self {
        Self { is_shown: io::stderr().is_terminal(), last: RefCell::default(), width: Cell::new(0) }
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self { is_shown: false, last: RefCell::default(), width: Cell::new(0) }
    }

    /// `doing` is at `done` of `of`, in bytes.
    pub fn at(&self, doing: &str, done: u64, of: u64) {
        if self.is_shown {
            self.show(line(doing, done, of));
        }
    }

    pub fn begin(&self, doing: &str) {
        if self.is_shown {
            self.show(format!("{doing} …"));
        }
    }

    /// Clears the line.
    pub fn end(&self) {
        if self.is_shown && self.width.get() > 0 {
            self.show(String::new());
        }
    }

    fn show(&self, line: String) {
        if *self.last.borrow() == line {
            return;
        }
        let width = self.width.replace(line.chars().count());
        let mut terminal = io::stderr();
        // Nothing depends on it.
        let _ = write!(terminal, "\r{line:width$}\r{line}").and_then(|()| terminal.flush());
        *self.last.borrow_mut() = line;
    }
}

/// What is quicker than this tells nothing.
const TICK: Duration = Duration::from_secs(1);

/// Tells every second how long `work` has been taking, of which nobody knows how far it is: a request that the server
/// answers when it is done.
pub fn while_waiting<T>(doing: &str, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let progress = Progress::to_terminal();
            let mut seconds = 0;
            while is_done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                seconds += 1;
                progress.begin(&waiting(doing, seconds));
            }
            progress.end();
        });
        let result = work();
        drop(done);
        result
    })
}

fn waiting(doing: &str, seconds: u64) -> String {
    match seconds {
        ..60 => format!("{doing}, for {seconds} s"),
        _ => format!("{doing}, for {} min {} s", seconds / 60, seconds % 60),
    }
}

fn line(doing: &str, done: u64, of: u64) -> String {
    let percent = (done.min(of) * 100).checked_div(of).unwrap_or(100);
    format!("{doing}: {percent} % of {}.{} MB", of / 1_000_000, of % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_of_how_much() {
        assert_eq!(line("sending", 1_000_000, 4_250_000), "sending: 23 % of 4.2 MB");
        assert_eq!(line("sending", 0, 0), "sending: 100 % of 0.0 MB");
    }

    #[test]
    fn a_wait_says_how_long_it_is() {
        assert_eq!(waiting("restoring app", 7), "restoring app, for 7 s");
        assert_eq!(waiting("restoring app", 61), "restoring app, for 1 min 1 s");
        assert_eq!(while_waiting("restoring app", || 5), 5);
    }
}
