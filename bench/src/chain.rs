//! Which requests waited for each other: round trips in sequence, out of the emulator's journal.

use std::fmt;
use std::time::Duration;

use emulator::JournalEntry;

/// Requests that each began after the one before had been answered, as many as there can be.
///
/// So it is never shorter than the longest row of requests that waited for each other, and longer only where one
/// request happened to begin after the end of another that it did not wait for.
pub struct Chain<'j>(Vec<&'j JournalEntry>);

impl<'j> Chain<'j> {
    pub fn of(entries: impl IntoIterator<Item = &'j JournalEntry>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        // The one that ends first leaves the most room for others.
        entries.sort_by_key(|entry| entry.ended);
        let mut links: Vec<&JournalEntry> = Vec::new();
        for entry in entries {
            if links.last().is_none_or(|last| last.ended <= entry.began) {
                links.push(entry);
            }
        }
        Self(links)
    }

    pub fn round_trips(&self) -> usize {
        self.0.len()
    }

    /// The time that its requests took.
    pub fn waited(&self) -> Duration {
        self.0.iter().map(|entry| entry.ended - entry.began).sum()
    }
}

/// `GET inc, PUT inc, 2 × PUT w`
impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alike = |a: &&JournalEntry, b: &&JournalEntry| (a.operation, &a.class) == (b.operation, &b.class);
        for (index, links) in self.0.chunk_by(alike).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let times = if links.len() == 1 { String::new() } else { format!("{} × ", links.len()) };
            let operation = links[0].operation.name().to_uppercase();
            write!(f, "{separator}{times}{operation} {}", links[0].class)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use emulator::{Class, Operation};

    use super::*;

    fn entry(operation: Operation, class: &str, began: u64, ended: u64) -> JournalEntry {
        let (began, ended) = (Duration::from_millis(began), Duration::from_millis(ended));
        JournalEntry { operation, class: Class::from(class), key: String::new(), began, ended, status: Some(200) }
    }

    #[test]
    fn requests_side_by_side_are_one_round_trip() {
        let journal = [
            entry(Operation::Put, "inc", 0, 10),
            entry(Operation::Get, "w", 11, 30),
            entry(Operation::Get, "w", 11, 20),
            entry(Operation::Get, "w", 11, 40),
            entry(Operation::Put, "w", 41, 50),
            entry(Operation::Put, "w", 50, 60),
        ];
        let chain = Chain::of(&journal);
        assert_eq!(chain.round_trips(), 4);
        assert_eq!(chain.to_string(), "PUT inc, GET w, 2 × PUT w");
        assert_eq!(chain.waited(), Duration::from_millis(10 + 9 + 9 + 10));
    }

    #[test]
    fn a_long_request_beside_short_ones_does_not_hide_them() {
        let journal = [
            entry(Operation::Get, "pack", 0, 100),
            entry(Operation::Get, "inc", 1, 20),
            entry(Operation::Put, "inc", 21, 40),
        ];
        assert_eq!(Chain::of(&journal).to_string(), "GET inc, PUT inc");
    }
}
