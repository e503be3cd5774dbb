//! A moment of a database's history, as people and clients write it.
//!
//! | written | means |
//! |---|---|
//! | `4711` | the commit with this LSN; `0` is before the first one |
//! | `2026-11-21T20:15:00Z`, with fractions of a second, or with an offset such as `+01:00` | the newest commit at or before this time (RFC 3339) |
//! | `2026-11-21T20:15:00` | the same, in UTC: so libSQL's server writes times |
//! | `<database id>-4711` | a bookmark: the LSN, and which database it is an LSN of |
//!
//! In a URL any of its characters may be percent-encoded. Times are kept in microseconds, as commits have them; what is
//! finer than that is cut off, which changes nothing about which commits are before it.

use std::fmt;

use tenant::calendar::Day;
use walstore::id::DatabaseId;
use walstore::limits::COUNTER_MAX;

use crate::cli::units::Span;

const MICROS_PER_SECOND: u64 = 1_000_000;
const MICROS_PER_MINUTE: u64 = 60 * MICROS_PER_SECOND;
const MICROS_PER_HOUR: u64 = 60 * MICROS_PER_MINUTE;

/// The longest text that can be a moment: a bookmark with the longest number, percent-encoded throughout.
const TEXT_BYTES_MAX: usize = 3 * 64;

/// How much of what is no moment an error repeats.
const ECHO_CHARS_MAX: usize = 60;

/// Which state of a database is meant. LSNs are raw: 0 is before the first commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    Lsn(u64),
    /// Microseconds since the Unix epoch.
    Time(u64),
    Bookmark { database: DatabaseId, lsn: u64 },
}

/// The text is no moment; the message says what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    #[error(
        "`{0}` is no moment: write an LSN (digits only), a time as in RFC 3339 (2026-11-21T20:15:00Z), or a bookmark \
         (<database id>-<lsn>)"
    )]
    Malformed(String),
    #[error("LSN {0} is further than any database gets")]
    TooLarge(String),
    #[error("`{0}` names a day or a time of day that does not exist, or one before 1970")]
    NoSuchTime(String),
}

impl Moment {
    pub fn parse(text: &str) -> Result<Self, MomentError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(MomentError::Malformed(echo(text)));
        }
        if is_number(text) {
            return Ok(Self::Lsn(parse_lsn(text)?));
        }
        if let Some((database, lsn)) = text.split_once('-').filter(|(id, _)| id.len() == 32) {
            let database = DatabaseId::parse(database).filter(|_| is_number(lsn));
            let database = database.ok_or_else(|| MomentError::Malformed(echo(text)))?;
            return Ok(Self::Bookmark { database, lsn: parse_lsn(lsn)? });
        }
        parse_time(text).map(Self::Time)
    }

    /// As a sentence names it: nobody takes a bare number for an LSN.
    pub fn told(self) -> String {
        match self {
            Self::Lsn(lsn) => format!("LSN {lsn}"),
            Self::Time(_) => self.to_string(),
            Self::Bookmark { .. } => format!("the bookmark {self}"),
        }
    }

    /// Reads one that stands in a URL.
    pub fn parse_encoded(text: &str) -> Result<Self, MomentError> {
        if !text.contains('%') {
            return Self::parse(text);
        }
        let decoded = Some(text).filter(|text| text.len() <= TEXT_BYTES_MAX).and_then(percent_decoded);
        Self::parse(&decoded.ok_or_else(|| MomentError::Malformed(echo(text)))?)
    }
}

/// In the form that is read back as the same.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(f, "{lsn}"),
            Self::Time(micros) => f.write_str(&time_text(*micros)),
            Self::Bookmark { database, lsn } => write!(f, "{database}-{lsn}"),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_lsn(text: &str) -> Result<u64, MomentError> {
    let lsn = text.parse().ok().filter(|lsn| *lsn < COUNTER_MAX);
    lsn.ok_or_else(|| MomentError::TooLarge(echo(text)))
}

/// The time in RFC 3339, in UTC, with as many digits of the fraction as it has.
pub fn time_text(micros: u64) -> String {
    let day = Day::of_micros(micros);
    // Moments after the year 9999 have no text of their own; no clock says such a time.
    let within = day.start_micros().map_or(0, |start| (micros - start).min(24 * MICROS_PER_HOUR - 1));
    let (hour, minute) = (within / MICROS_PER_HOUR, within / MICROS_PER_MINUTE % 60);
    let (second, fraction) = (within / MICROS_PER_SECOND % 60, within % MICROS_PER_SECOND);
    let (year, month, day) = (day.year(), day.month(), day.day());
    let whole = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match fraction {
        0 => format!("{whole}Z"),
        fraction => format!("{whole}.{}Z", format!("{fraction:06}").trim_end_matches('0')),
    }
}

/// Microseconds since the Unix epoch of a time in RFC 3339. Without an offset it is in UTC.
pub fn parse_time(text: &str) -> Result<u64, MomentError> {
    let (parts, offset_minutes) = split_time(text).ok_or_else(|| MomentError::Malformed(echo(text)))?;
    parts.micros(offset_minutes).ok_or_else(|| MomentError::NoSuchTime(echo(text)))
}

/// What stands in a time of RFC 3339 before its offset.
struct Parts {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    fraction_micros: u64,
}

impl Parts {
    fn micros(&self, offset_minutes: i64) -> Option<u64> {
        // A leap second is the last moment of its minute here, as on the clocks that commits have their times from.
        let is_real = self.hour < 24 && self.minute < 60 && self.second <= 60;
        let day = Day::new(self.year, self.month, self.day).filter(|_| is_real)?;
        let (second, fraction) = match self.second {
            60 => (59, MICROS_PER_SECOND - 1),
            second => (second, self.fraction_micros),
        };
        let within = u64::from(self.hour) * MICROS_PER_HOUR
            + u64::from(self.minute) * MICROS_PER_MINUTE
            + u64::from(second) * MICROS_PER_SECOND
            + fraction;
        let local = day.start_micros()?.checked_add(within)?;
        local.checked_add_signed(-(offset_minutes * MICROS_PER_MINUTE as i64))
    }
}

/// Splits `2026-11-21T20:15:00.25+01:00` into its parts and its offset in minutes; what they say is not looked at.
fn split_time(text: &str) -> Option<(Parts, i64)> {
    let bytes = text.as_bytes();
    let punctuation = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    let is_in_place = |(at, expected): &(usize, &[u8; 1])| bytes.get(*at) == Some(&expected[0]);
    if !text.is_ascii() || bytes.len() < 19 || !punctuation.iter().all(is_in_place) || !b"Tt ".contains(&bytes[10]) {
        return None;
    }
    let number = |from: usize, to: usize| is_number(&text[from..to]).then(|| text[from..to].parse::<u16>().ok()).flatten();
    let short = |from: usize| number(from, from + 2).and_then(|number| u8::try_from(number).ok());
    let (fraction_micros, offset) = split_fraction(&text[19..])?;
    let parts = Parts {
        year: number(0, 4)?,
        month: short(5)?,
        day: short(8)?,
        hour: short(11)?,
        minute: short(14)?,
        second: short(17)?,
        fraction_micros,
    };
    Some((parts, parse_offset(offset)?))
}

/// The fraction of a second, in microseconds, and what follows it.
fn split_fraction(text: &str) -> Option<(u64, &str)> {
    let Some(text) = text.strip_prefix('.') else { return Some((0, text)) };
    let (digits, rest) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return None;
    }
    let micros = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some((micros.fold(0, |micros, digit| micros * 10 + u64::from(digit - b'0')), rest))
}

/// Minutes ahead of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text {
        "" | "Z" | "z" => return Some(0),
        text if text.starts_with('+') => (1, &text[1..]),
        text if text.starts_with('-') => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let part = |text: &str, below: i64| {
        let number = Some(text).filter(|text| text.len() == 2 && is_number(text)).and_then(|text| text.parse().ok());
        number.filter(|number: &i64| *number < below)
    };
    Some(sign * (part(hours, 24)? * 60 + part(minutes, 60)?))
}

/// When something ends that is to last for some time (`7d`), or until some time. In microseconds since the Unix epoch.
pub fn parse_end(text: &str, now_micros: u64) -> Result<u64, String> {
    let end = match text.parse::<Span>() {
        Ok(span) => u64::try_from(span.as_duration().as_micros()).ok().and_then(|micros| now_micros.checked_add(micros)),
        Err(_) => parse_time(text).ok(),
    };
    match end {
        None => Err(format!("`{}` is neither a duration (7d, 12h) nor a time (2026-11-21T20:15:00Z)", echo(text))),
        Some(end) if end <= now_micros => Err(format!("`{}` is over by now", echo(text))),
        Some(end) => Ok(end),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [byte, after @ ..] = rest {
        let (byte, after) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                (u8::try_from(digit(high)? * 16 + digit(low)?).ok()?, after)
            }
            (b'%', _) => return None,
            (byte, after) => (*byte, after),
        };
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8(decoded).ok()
}

/// The beginning of what is no moment, with control characters escaped.
fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS_MAX).flat_map(char::escape_default).collect()
}

#[cfg(test)]
#[path = "moment_tests.rs"]
mod tests;
