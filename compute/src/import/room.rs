//! Room on the disk for files that are on their way. Each upload was promised the room for all of it when it began, so
//! what is still to come of the others does not count as free.
//!
//! A promise is kept as long as something is heard of the upload. Whoever comes back later asks anew, and is refused if
//! others have the room by then; what had arrived stays for longer.

use std::collections::BTreeMap;

use tenant::name::Name;

use crate::limits;

/// What this node has promised, by the name of the database that the file is to become.
#[derive(Debug, Default)]
pub struct Promises(BTreeMap<Name, Promise>);

#[derive(Debug)]
struct Promise {
    /// Bytes that are still to come.
    rest: u64,
    heard_micros: u64,
}

impl Promises {
    /// Promises room for the rest of a file, or goes on doing so. `free`: bytes that the disk has. Without room the
    /// answer is how much there is for this file.
    pub fn ask(&mut self, name: &Name, rest: u64, free: u64, now_micros: u64) -> Result<(), u64> {
        let kept = limits::UPLOAD_PROMISED.as_micros() as u64;
        self.0.retain(|_, promise| now_micros.saturating_sub(promise.heard_micros) <= kept);
        let others: u64 = self.0.iter().filter(|(of, _)| *of != name).map(|(_, promise)| promise.rest).sum();
        // The disk cache and temporary files of queries want some, too.
        let room = (free / 10 * 9).saturating_sub(others);
        let has_it = self.0.get(name).is_some_and(|promise| rest <= promise.rest);
        if !has_it && rest > room {
            return Err(room);
        }
        self.0.insert(name.clone(), Promise { rest, heard_micros: now_micros });
        Ok(())
    }

    /// Nothing more is to come.
    pub fn end(&mut self, name: &Name) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: u64 = limits::UPLOAD_PROMISED.as_micros() as u64;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn what_others_were_promised_is_not_free() {
        let (mut promises, [a, b]) = (Promises::default(), ["a", "b"].map(name));
        assert_eq!(promises.ask(&a, 600, 1000, 0), Ok(()));
        assert_eq!(promises.ask(&b, 301, 1000, 0), Err(300));
        assert_eq!(promises.ask(&b, 300, 1000, 0), Ok(()));
        // It arrives: the disk has as much less as is to come less.
        assert_eq!(promises.ask(&a, 200, 600, 0), Ok(()));
        assert_eq!(promises.ask(&b, 341, 600, 0), Err(340));
        promises.end(&a);
        assert_eq!(promises.ask(&b, 540, 600, 0), Ok(()));
    }

    #[test]
    fn a_promise_is_kept_though_others_fill_the_disk_until_nothing_is_heard_for_long() {
        let (mut promises, [a, b]) = (Promises::default(), ["a", "b"].map(name));
        assert_eq!(promises.ask(&a, 600, 1000, 0), Ok(()));
        assert_eq!(promises.ask(&a, 500, 100, KEPT), Ok(()), "something else has filled it; the write will tell");
        assert_eq!(promises.ask(&b, 500, 1000, 2 * KEPT), Err(400));
        assert_eq!(promises.ask(&b, 500, 1000, 2 * KEPT + 1), Ok(()), "nothing was heard of the other");
        assert_eq!(promises.ask(&a, 500, 1000, 2 * KEPT + 1), Err(400), "it asks anew");
    }
}
