//! Integers in 1 to 10 bytes (LEB128): seven bits a byte, low bits first, the top bit set on all but the
//! last byte. Only the shortest form of a value is accepted, so that a value has one encoding.

use walstore::envelope::{Corrupt, Reader, Writer};

pub fn put(out: &mut Writer, mut value: u64) {
    while value >= 0x80 {
        out.u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.u8(value as u8);
}

pub fn put_len(out: &mut Writer, length: usize) {
    put(out, length as u64);
}

/// A signed value, near zero short (zigzag).
pub fn put_signed(out: &mut Writer, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub fn take(reader: &mut Reader<'_>) -> Result<u64, Corrupt> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Corrupt::new("a variable-length integer that is too long"))
}

pub fn take_u32(reader: &mut Reader<'_>) -> Result<u32, Corrupt> {
    let value = take(reader)?;
    u32::try_from(value).map_err(|_| Corrupt::new(format!("{value} where 32 bits are allowed")))
}

pub fn take_signed(reader: &mut Reader<'_>) -> Result<i64, Corrupt> {
    let value = take(reader)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// A count of entries of at least `entry_bytes_min` each, so that a hostile count cannot allocate more
/// than the input justifies.
pub fn take_count(reader: &mut Reader<'_>, entry_bytes_min: usize) -> Result<usize, Corrupt> {
    let count = usize::try_from(take(reader)?).unwrap_or(usize::MAX);
    if count.saturating_mul(entry_bytes_min.max(1)) > reader.remaining() {
        return Err(Corrupt::new(format!("claims {count} entries, more than fit")));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut out = Writer::new();
        write(&mut out);
        out.finish()
    }

    #[test]
    fn golden_varints() {
        assert_eq!(written(|out| put(out, 0)), [0]);
        assert_eq!(written(|out| put(out, 300)), [0xac, 0x02]);
        assert_eq!(written(|out| put_signed(out, -1)), [1]);
        let longest = written(|out| put(out, u64::MAX));
        assert_eq!((longest.len(), longest[9]), (10, 1));
    }

    #[test]
    fn longer_forms_and_overflows_are_refused() {
        for bad in [&[0x80, 0][..], &[0xff; 10], &[0xff; 11], &[0x80], &[]] {
            assert!(take(&mut Reader::new(bad)).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_value_round_trips(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let bytes = written(|out| { put(out, value); put_signed(out, value as i64) });
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(take(&mut reader).unwrap(), value);
            prop_assert_eq!(take_signed(&mut reader).unwrap(), value as i64);
            reader.end().unwrap();
        }
    }
}
