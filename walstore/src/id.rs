//! Identities: fixed-width, never empty, never reused.

use std::fmt;
use std::num::NonZeroU64;

use crate::seam::Seam;

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 128 random bits; its text form is 32 lower-case hexadecimal digits.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            pub fn random(seam: &Seam) -> Self {
                Self(seam.random_id())
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Reads the text form; anything else, upper case included, is `None`.
            pub fn parse(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id128! {
    /// One life of one node process.
    IncarnationId
}
id128! {
    /// One SQLite database and its line of history.
    DatabaseId
}
id128! {
    /// Lets a retried write recognise its own earlier success.
    PutId
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A database's commit counter: dense, from 1. The state before the first commit is `Option::None`,
/// written as 0 in every persisted form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(NonZeroU64);

impl Lsn {
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// `None` for 0.
    pub const fn new(lsn: u64) -> Option<Self> {
        match NonZeroU64::new(lsn) {
            Some(lsn) => Some(Self(lsn)),
            None => None,
        }
    }

    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The LSN after `last`; [`Lsn::FIRST`] after none.
    ///
    /// # Panics
    /// After 2^64 − 1 commits.
    pub fn after(last: Option<Self>) -> Self {
        last.map_or(Self::FIRST, |lsn| Self(lsn.0.checked_add(1).expect("BUG: LSN overflow")))
    }

    /// The persisted form, 0 for none.
    pub fn raw(lsn: Option<Self>) -> u64 {
        lsn.map_or(0, Self::get)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A position in an incarnation's log, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    pub const ZERO: Self = Self(0);

    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("BUG: slot overflow"))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_is_the_only_one() {
        let id = DatabaseId::from_bytes(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\xfc\xfd\xfe\xff");
        assert_eq!(id.to_string(), "000102030405060708090a0bfcfdfeff");
        assert_eq!(DatabaseId::parse(&id.to_string()), Some(id));
        for bad in ["", "0", "000102030405060708090A0BFCFDFEFF", "000102030405060708090a0bfcfdfeff0", "é"] {
            assert_eq!(DatabaseId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lsns_start_at_one_and_are_dense() {
        assert_eq!(Lsn::after(None).get(), 1);
        assert_eq!(Lsn::after(Lsn::new(41)).get(), 42);
        assert_eq!(Lsn::raw(None), 0);
    }
}
