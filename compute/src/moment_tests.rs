use proptest::prelude::*;

use super::*;

const ID: &str = "000102030405060708090a0b0c0d0e0f";
/// 2026-11-21T20:15:00Z, by `date -u -d … +%s`.
const EVENING: u64 = 1_795_292_100 * MICROS_PER_SECOND;

fn time(text: &str) -> Result<u64, MomentError> {
    match Moment::parse(text)? {
        Moment::Time(micros) => Ok(micros),
        other => panic!("{text} was read as {other:?}"),
    }
}

#[test]
fn digits_are_an_lsn_however_much_they_look_like_a_year() {
    for (text, lsn) in [("0", 0), ("1", 1), ("20261121", 20_261_121), ("0042", 42)] {
        assert_eq!(Moment::parse(text), Ok(Moment::Lsn(lsn)));
    }
    for text in ["4611686018427387904", "99999999999999999999999"] {
        assert!(matches!(Moment::parse(text), Err(MomentError::TooLarge(_))), "{text}");
    }
}

#[test]
fn times_are_read_in_utc_with_fractions_and_with_offsets() {
    for (text, micros) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-21T20:15:00Z", EVENING),
        ("2026-11-21t20:15:00z", EVENING),
        ("2026-11-21 20:15:00Z", EVENING),
        ("2026-11-21T20:15:00", EVENING),
        ("2026-11-21T20:15:00.25", EVENING + 250_000),
        ("2026-11-21T20:15:00.000001Z", EVENING + 1),
        ("2026-11-21T20:15:00.0000019999Z", EVENING + 1),
        ("2026-11-21T21:15:00+01:00", EVENING),
        ("2026-11-22T01:45:00.5+05:30", EVENING + 500_000),
        ("2026-11-21T12:15:00-08:00", EVENING),
        ("2026-11-21T20:14:60Z", EVENING - 1),
        ("9999-12-31T23:59:59Z", 253_402_300_799 * MICROS_PER_SECOND),
    ] {
        assert_eq!(time(text), Ok(micros), "{text}");
    }
}

#[test]
fn what_is_no_moment_is_refused_with_what_to_write() {
    for text in [
        "", "now", "-1", "+1", "1.5", "2026-11-21", "2026-11-21T20:15", "2026-11-21T20:15:00.Z",
        "2026-11-21T20:15:00X", "2026-11-21T20:15:00+1:00", "2026-11-21T20:15:00+0100", "2026-11-21T20:15:00+24:00",
        "2026/11/21T20:15:00Z", "2026-11-21T+1:15:00Z", "2026-11-21T20:15:00Z ", "２０２６-11-21T20:15:00Z",
        "000102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0f-", "000102030405060708090a0b0c0d0e0f-x",
        "000102030405060708090A0B0C0D0E0F-1",
    ] {
        let Err(MomentError::Malformed(_)) = Moment::parse(text) else { panic!("{text} was read") };
    }
    for text in ["2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01", "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z"]
    {
        assert!(matches!(Moment::parse(text), Err(MomentError::NoSuchTime(_))), "{text}");
    }
    let long = "9".repeat(100_000);
    assert!(Moment::parse(&long).unwrap_err().to_string().len() < 400);
}

#[test]
fn a_bookmark_names_its_database() {
    let database = DatabaseId::parse(ID).unwrap();
    let bookmark = Moment::Bookmark { database, lsn: 4711 };
    assert_eq!(Moment::parse(&format!("{ID}-4711")), Ok(bookmark));
    assert_eq!(bookmark.to_string(), format!("{ID}-4711"));
}

#[test]
fn a_url_may_encode_it_in_part_or_throughout() {
    for text in ["2026-11-21T20%3A15%3A00Z", "2026-11-21T20%3a15:00Z", "2026%2d11-21T21:15:00%2B01:00"] {
        assert_eq!(Moment::parse_encoded(text), Ok(Moment::Time(EVENING)), "{text}");
    }
    for text in ["%", "%3", "4%", "%zz", "%+1", "1%00", "%ff", "2026-11-21T20%253A15:00Z"] {
        assert!(Moment::parse_encoded(text).is_err(), "{text}");
    }
}

#[test]
fn an_end_is_a_duration_or_a_time_to_come() {
    let hour = MICROS_PER_HOUR;
    assert_eq!(parse_end("12h", EVENING), Ok(EVENING + 12 * hour));
    assert_eq!(parse_end("7d", EVENING), Ok(EVENING + 7 * 24 * hour));
    assert_eq!(parse_end("2026-11-21T21:15:00Z", EVENING), Ok(EVENING + hour));
    for over in ["0", "2026-11-21T20:15:00Z", "2020-01-01T00:00:00Z"] {
        assert!(parse_end(over, EVENING).unwrap_err().contains("is over"), "{over}");
    }
    for bad in ["", "7", "soon", "99999999999999999d"] {
        assert!(parse_end(bad, EVENING).unwrap_err().contains("7d"), "{bad}");
    }
}

proptest! {
    #[test]
    fn every_moment_is_read_back_as_it_was_written(lsn in 0..COUNTER_MAX, micros in 0..253_402_300_800_000_000u64, id: [u8; 16]) {
        let database = DatabaseId::from_bytes(id);
        for moment in [Moment::Lsn(lsn), Moment::Time(micros), Moment::Bookmark { database, lsn }] {
            let text = moment.to_string();
            prop_assert_eq!(Moment::parse(&text), Ok(moment));
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(Moment::parse_encoded(&encoded), Ok(moment));
        }
    }

    #[test]
    fn times_sort_as_their_texts_do(one in 0..253_402_300_800u64, other in 0..253_402_300_800u64) {
        let [earlier, later] = [one.min(other), one.max(other)].map(|seconds| time_text(seconds * MICROS_PER_SECOND));
        prop_assert!(earlier <= later);
    }

    #[test]
    fn an_offset_says_how_far_the_clock_on_the_wall_is_ahead(micros in 86_400_000_000..253_402_000_000_000_000u64, minutes in -1439i64..1440) {
        let wall = micros.checked_add_signed(minutes * MICROS_PER_MINUTE as i64).unwrap();
        let sign = if minutes < 0 { '-' } else { '+' };
        let text = time_text(wall);
        let text = format!("{}{sign}{:02}:{:02}", text.trim_end_matches('Z'), minutes.abs() / 60, minutes.abs() % 60);
        prop_assert_eq!(time(&text), Ok(micros));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", near in "[0-9T:.+Z-]{0,40}") {
        for text in [text, near] {
            let _ = (Moment::parse(&text), Moment::parse_encoded(&text), parse_end(&text, 5));
        }
    }
}
