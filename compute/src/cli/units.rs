//! Sizes, durations and group-commit windows as people write them, on the command line, in the
//! environment and in `shoal.toml` alike.
//!
//! | type | written |
//! |---|---|
//! | [`ByteSize`] | a whole number and a unit: `4096`, `512KiB`, `256MiB`, `1GiB` (powers of 1024), `1KB`, `10MB`, `1GB` (powers of 1000) |
//! | [`Span`] | a whole number and a unit: `900ms`, `10s`, `5m`, `1h`, `7d` |
//! | [`Window`] | one of `0`, `5ms`, `10ms`, `25ms`, `50ms`, `100ms`, `500ms`; the unit may be left out |
//!
//! A duration without a unit is refused, because half of the world reads it as seconds and the
//! other half as milliseconds. `0` needs none.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::limits::CORES_MAX;

/// A text that isn't a size, a duration or a window; the message says what is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// A length of time, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// How long a commit may wait for others to share its PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window(u16);

const BYTE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const MILLIS_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The windows that exist: each is a price, not a free choice.
const WINDOWS_MS: [u16; 7] = [0, 5, 10, 25, 50, 100, 500];

impl ByteSize {
    pub const fn bytes(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    pub const fn mib(mib: u64) -> ByteSize {
        ByteSize(mib << 20)
    }

    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// For sizes of things in memory. On a 32-bit machine a larger size means "all there is".
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Span {
    pub const fn millis(millis: u64) -> Span {
        Span(Duration::from_millis(millis))
    }

    pub const fn secs(secs: u64) -> Span {
        Span(Duration::from_secs(secs))
    }

    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// In the largest unit that keeps it whole: `7d`, which is printed as `604800s` where it stands beside shorter ones.
    pub fn in_large_units(self) -> String {
        let millis = self.0.as_millis();
        let is_whole = |unit: &u64| millis >= u128::from(*unit) && millis.is_multiple_of(u128::from(*unit));
        let unit = MILLIS_UNITS.into_iter().rev().find(|(_, unit)| is_whole(unit));
        unit.map_or_else(|| "0".into(), |(name, unit)| format!("{}{name}", millis / u128::from(unit)))
    }
}

impl Window {
    pub const NONE: Window = Window(0);

    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// Splits `256MiB` into its number and its unit; a space between them is fine.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// The number times what its unit stands for, or `None` for an unknown unit or an overflow.
fn scaled(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        number_and_unit(text)
            .and_then(|(number, unit)| match unit {
                "" => Some(number),
                unit => scaled(number, unit, &BYTE_UNITS),
            })
            .map(ByteSize)
            .ok_or_else(|| UnitError(format!("`{text}` is not a size: write 4096, 512KiB, 256MiB, 1GiB or 10MB")))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        let refused = |reason: &str| UnitError(format!("`{text}` {reason}: write 900ms, 10s, 5m, 1h or 7d"));
        match number_and_unit(text) {
            Some((0, "")) => Ok(Span::millis(0)),
            Some((_, "")) => Err(refused("has no unit")),
            Some((number, unit)) => {
                scaled(number, unit, &MILLIS_UNITS).map(Span::millis).ok_or_else(|| refused("is not a duration"))
            }
            None => Err(refused("is not a duration")),
        }
    }
}

impl FromStr for Window {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Window, UnitError> {
        let millis = match number_and_unit(text) {
            Some((number, "")) => Some(number),
            Some((number, unit)) => scaled(number, unit, &MILLIS_UNITS),
            None => None,
        };
        WINDOWS_MS.into_iter().find(|window| millis == Some(u64::from(*window))).map(Window).ok_or_else(|| {
            let text = format!("`{text}` is not a group-commit window");
            UnitError(format!("{text}: write 0, 5ms, 10ms, 25ms, 50ms, 100ms or 500ms"))
        })
    }
}

/// In the largest unit of 1024 that keeps it whole, so that what is printed can be written back.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            0 => f.write_str("0"),
            n if n % 1_000 == 0 => write!(f, "{}s", n / 1_000),
            n => write!(f, "{n}ms"),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n => write!(f, "{n}ms"),
        }
    }
}

/// Reads a unit from TOML: a string in the same form as a flag, or a bare number where the flag
/// takes one.
struct TextOrNumber<T> {
    expected: &'static str,
    unit: PhantomData<T>,
}

impl<T: FromStr<Err = UnitError>> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! deserialize_as_text_or_number {
    ($($unit:ty, $expected:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$unit, D::Error> {
                deserializer.deserialize_any(TextOrNumber { expected: $expected, unit: PhantomData })
            }
        }
    )*};
}

deserialize_as_text_or_number! {
    ByteSize, "a size such as \"256MiB\"";
    Span, "a duration such as \"10s\"";
    Window, "a group-commit window such as \"10ms\"";
}

/// An address to listen on. Names are refused: what `localhost` means differs between machines.
pub fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".into())
}

/// For the command line's parser. Zero is refused later, as in the file.
pub fn core_count(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| format!("write a number from 1 to {CORES_MAX}"))?;
    if count <= CORES_MAX { Ok(count) } else { Err(format!("at most {CORES_MAX} threads can run SQL")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_a_node_can_have_are_refused_with_the_bound() {
        assert_eq!(core_count("256"), Ok(256));
        for text in ["257", "9999", "-1", "many", "99999999999999999999"] {
            assert!(core_count(text).unwrap_err().contains("256"), "{text}");
        }
    }

    fn size(text: &str) -> Result<u64, UnitError> {
        text.parse::<ByteSize>().map(ByteSize::as_bytes)
    }

    fn millis(text: &str) -> Result<u128, UnitError> {
        text.parse::<Span>().map(|span| span.as_duration().as_millis())
    }

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1B", 1),
            ("1KB", 1_000),
            ("1KiB", 1_024),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("1GB", 1_000_000_000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_an_example() {
        for text in ["", "MiB", "-1", "1.5GiB", "1XB", "1 2", "99999999999999999999", "18446744073709551615KiB"] {
            let error = size(text).expect_err(text).to_string();
            assert!(error.contains("256MiB"), "{error}");
        }
    }

    #[test]
    fn durations_need_a_unit_unless_they_are_zero() {
        assert_eq!(millis("900ms"), Ok(900));
        assert_eq!(millis("10s"), Ok(10_000));
        assert_eq!(millis("5 m"), Ok(300_000));
        assert_eq!(millis("1h"), Ok(3_600_000));
        assert_eq!(millis("7d"), Ok(604_800_000));
        assert_eq!(millis("0"), Ok(0));
        let error = millis("10").expect_err("no unit").to_string();
        assert_eq!(error, "`10` has no unit: write 900ms, 10s, 5m, 1h or 7d");
        for text in ["", "s", "1.5s", "-1s", "10 years", "18446744073709551615h"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_windows_that_exist_can_be_chosen() {
        for (text, window) in [("0", 0), ("0ms", 0), ("5", 5), ("25ms", 25), ("500", 500)] {
            assert_eq!(text.parse::<Window>().map(|w| w.as_duration().as_millis()), Ok(window), "{text}");
        }
        for text in ["1", "7ms", "1s", "10x", ""] {
            let error = text.parse::<Window>().expect_err(text).to_string();
            assert!(error.ends_with("write 0, 5ms, 10ms, 25ms, 50ms, 100ms or 500ms"), "{error}");
        }
    }

    #[test]
    fn what_is_printed_can_be_written_back() {
        for text in ["0", "1000", "512KiB", "256MiB", "1GiB"] {
            assert_eq!(text.parse::<ByteSize>().expect(text).to_string(), text);
        }
        for text in ["0", "900ms", "10s"] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), text);
        }
        for text in ["0", "25ms"] {
            assert_eq!(text.parse::<Window>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn large_units_are_used_where_they_are_whole() {
        for text in ["0", "7d", "12h", "36h", "90s", "5m", "1500ms"] {
            assert_eq!(text.parse::<Span>().expect(text).in_large_units(), text);
        }
        assert_eq!(Span::secs(86_400).in_large_units(), "1d");
    }

    #[test]
    fn toml_takes_the_same_texts_and_plain_numbers_where_flags_do() {
        #[derive(serde::Deserialize)]
        struct Sample {
            size: ByteSize,
            span: Span,
            window: Window,
        }
        let sample: Sample = toml::from_str("size = 4096\nspan = \"10s\"\nwindow = 25").expect("plain numbers");
        assert_eq!(sample.size, ByteSize::bytes(4096));
        assert_eq!(sample.span, Span::secs(10));
        assert_eq!(sample.window.to_string(), "25ms");
        let no_unit = toml::from_str::<Sample>("size = \"1KiB\"\nspan = 10\nwindow = 0");
        let error = no_unit.err().expect("a span needs its unit").to_string();
        assert!(error.contains("line 2") && error.contains("has no unit"), "{error}");
        let no_text = toml::from_str::<Sample>("size = true\nspan = \"1s\"\nwindow = 0");
        let error = no_text.err().expect("true is no size").to_string();
        assert!(error.contains("a size such as \"256MiB\""), "{error}");
    }
}
