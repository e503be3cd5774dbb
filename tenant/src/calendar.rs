//! The civil day of a moment, in UTC, without a time zone or a locale.

use std::fmt;

const MICROS_PER_DAY: u64 = 86_400_000_000;
/// The Gregorian calendar repeats after so many years, which have so many days.
const CYCLE_YEARS: u64 = 400;
const CYCLE_DAYS: u64 = 146_097;
/// From 1600-01-01, where a cycle starts, to 1970-01-01.
const DAYS_FROM_1600_TO_1970: u64 = 135_140;
/// A day in a key has four digits for the year, so that days sort as text.
const LAST: Day = Day { year: 9999, month: 12, day: 31 };

/// A day of the Gregorian calendar. Its text form is `yyyymmdd`, which sorts as days do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    year: u16,
    month: u8,
    day: u8,
}

impl Day {
    /// The day of a moment in microseconds since the Unix epoch. Every moment after the year 9999 is its
    /// last day: nothing that is due then is ever due.
    pub fn of_micros(micros: u64) -> Self {
        let days = micros / MICROS_PER_DAY + DAYS_FROM_1600_TO_1970;
        let mut year = 1600 + days / CYCLE_DAYS * CYCLE_YEARS;
        let mut day = days % CYCLE_DAYS;
        // At most 400 steps, on a path that a database takes a few times in its life.
        while day >= days_of_year(year) {
            day -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while day >= days_of_month(year, month) {
            day -= days_of_month(year, month);
            month += 1;
        }
        match u16::try_from(year) {
            Ok(year) if year <= LAST.year => Self { year, month, day: day as u8 + 1 },
            _ => LAST,
        }
    }

    /// Reads the text form, if it names a day that exists.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Self::new(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?)
    }

    /// The day of a year up to 9999, if there is one.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let is_real = year <= LAST.year
            && (1..=12).contains(&month)
            && (1..=days_of_month(u64::from(year), month)).contains(&u64::from(day));
        is_real.then_some(Self { year, month, day })
    }

    pub fn year(self) -> u16 {
        self.year
    }

    pub fn month(self) -> u8 {
        self.month
    }

    pub fn day(self) -> u8 {
        self.day
    }

    /// When it begins, in microseconds since the Unix epoch; `None` before that.
    pub fn start_micros(self) -> Option<u64> {
        let years = u64::from(self.year).checked_sub(1600)?;
        let leaps = years.div_ceil(4) - years.div_ceil(100) + years.div_ceil(400);
        let months: u64 = (1..self.month).map(|month| days_of_month(u64::from(self.year), month)).sum();
        let days = years * 365 + leaps + months + u64::from(self.day) - 1;
        Some(days.checked_sub(DAYS_FROM_1600_TO_1970)? * MICROS_PER_DAY)
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u64, month: u8) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}{:02}{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(days: u64) -> String {
        Day::of_micros(days * MICROS_PER_DAY).to_string()
    }

    /// The expected days come from `date -u -d @<seconds>`.
    #[test]
    fn known_moments_have_their_days() {
        for (seconds, day) in [
            (0, "19700101"),
            (951_782_400, "20000229"),
            (951_868_800, "20000301"),
            (1_709_164_799, "20240228"),
            (1_709_164_800, "20240229"),
            (1_735_689_599, "20241231"),
            (1_735_689_600, "20250101"),
            (4_107_542_400, "21000301"),
            (253_402_300_799, "99991231"),
            (253_402_300_800, "99991231"),
        ] {
            assert_eq!(Day::of_micros(seconds * 1_000_000).to_string(), day);
        }
        assert_eq!(Day::of_micros(u64::MAX).to_string(), "99991231");
    }

    #[test]
    fn a_century_without_a_leap_day_has_none() {
        assert_eq!((text(47_540), text(47_541)), ("21000228".into(), "21000301".into()));
    }

    #[test]
    fn days_before_the_epoch_have_no_beginning() {
        for (year, month, day) in [(1969, 12, 31), (1600, 1, 1), (1599, 12, 31), (0, 1, 1)] {
            assert_eq!(Day::new(year, month, day).unwrap().start_micros(), None);
        }
        assert_eq!(Day::new(1970, 1, 1).unwrap().start_micros(), Some(0));
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for bad in ["", "2024022", "20230229", "20240230", "20241301", "20240001", "20240100", "+2024010", "2024-1-1"] {
            assert_eq!(Day::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_day_begins_where_its_moments_begin(days in 0u64..2_932_896, within in 0..MICROS_PER_DAY) {
            let start = days * MICROS_PER_DAY;
            let day = Day::of_micros(start + within);
            prop_assert_eq!(day.start_micros(), Some(start));
            prop_assert_eq!(Day::new(day.year(), day.month(), day.day()), Some(day));
        }

        #[test]
        fn each_day_follows_the_one_before(days in 0u64..2_932_896) {
            let (today, tomorrow) = (Day::parse(&text(days)).unwrap(), Day::parse(&text(days + 1)).unwrap());
            prop_assert!(today < tomorrow);
            let next_day = tomorrow.day == today.day + 1 && tomorrow.month == today.month;
            let next_month = tomorrow.day == 1 && today.day >= 28;
            prop_assert!(next_day || next_month, "{today} {tomorrow}");
        }
    }
}
