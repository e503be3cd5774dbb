//! Writing JSON straight into a byte vector.
//!
//! Nothing here can fail: memory is the only sink, and text that isn't UTF-8 is repaired.
//! `serde_json` formats the scalars (string escapes, shortest round-trip floats); the structure
//! around them is written by [`Object`] and [`write_array`].

use serde::Serialize;

/// A value that knows its own JSON.
pub trait WriteJson {
    fn write_json(&self, out: &mut Vec<u8>);

    fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_json(&mut out);
        out
    }
}

/// Writes `{"name":value,…}`, field by field.
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    /// What comes before the next field: the opening brace, then commas.
    separator: u8,
}

impl<'o> Object<'o> {
    #[must_use = "an object that isn't ended is not JSON"]
    pub fn begin(out: &'o mut Vec<u8>) -> Object<'o> {
        Object { out, separator: b'{' }
    }

    /// Adds one field. `name` is a constant of the protocol and is not escaped.
    #[must_use = "an object that isn't ended is not JSON"]
    pub fn field(self, name: &'static str, value: &(impl WriteJson + ?Sized)) -> Object<'o> {
        self.out.push(self.separator);
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.write_json(self.out);
        Object { separator: b',', ..self }
    }

    /// Adds the field only if there is a value, for fields that are absent rather than `null`.
    #[must_use = "an object that isn't ended is not JSON"]
    pub fn field_if_some(self, name: &'static str, value: Option<&(impl WriteJson + ?Sized)>) -> Object<'o> {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    pub fn end(self) {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}

/// Writes `[item,…]`; `write_item` writes one item.
pub fn write_array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write_item: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_item(out, item);
    }
    out.push(b']');
}

/// A number that travels as a string, because many JSON parsers read numbers as doubles and lose
/// what lies beyond 2^53.
pub struct InString<N>(pub N);

fn write_scalar(out: &mut Vec<u8>, scalar: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, scalar).expect("BUG: a scalar into memory always serialises");
}

impl<N: Serialize> WriteJson for InString<N> {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        write_scalar(out, &self.0);
        out.push(b'"');
    }
}

macro_rules! scalars {
    ($($scalar:ty),*) => {
        $(impl WriteJson for $scalar {
            fn write_json(&self, out: &mut Vec<u8>) {
                write_scalar(out, self);
            }
        })*
    };
}

scalars!(str, String, bool, u32, u64, i64);

/// JSON has no word for infinity but numbers of any size: `1e999` is one that a parser of doubles rounds to
/// infinity. NaN, which SQLite never returns, becomes `null`.
impl WriteJson for f64 {
    fn write_json(&self, out: &mut Vec<u8>) {
        match *self {
            f64::INFINITY => out.extend_from_slice(b"1e999"),
            f64::NEG_INFINITY => out.extend_from_slice(b"-1e999"),
            _ => write_scalar(out, self),
        }
    }
}

impl<T: WriteJson> WriteJson for Option<T> {
    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write_json(out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

impl<T: WriteJson> WriteJson for [T] {
    fn write_json(&self, out: &mut Vec<u8>) {
        write_array(out, self, |out, item| item.write_json(out));
    }
}

impl<T: WriteJson> WriteJson for Vec<T> {
    fn write_json(&self, out: &mut Vec<u8>) {
        self.as_slice().write_json(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_object_without_fields_is_still_an_object() {
        let mut out = Vec::new();
        Object::begin(&mut out).field_if_some("absent", None::<&str>).end();
        assert_eq!(text(out), "{}");
    }

    #[test]
    fn fields_arrays_and_scalars_are_separated_and_escaped() {
        let mut out = Vec::new();
        Object::begin(&mut out)
            .field("s", "a\"\\\n\0é\u{2028}")
            .field("n", &None::<u64>)
            .field_if_some("i", Some(&InString(i64::MIN)))
            .field("a", &vec![true, false])
            .field("e", &Vec::<u64>::new())
            .end();
        assert_eq!(
            text(out),
            "{\"s\":\"a\\\"\\\\\\n\\u0000é\u{2028}\",\"n\":null,\"i\":\"-9223372036854775808\",\"a\":[true,false],\"e\":[]}"
        );
    }

    #[test]
    fn floats_are_written_so_that_they_read_back_the_same() {
        for (float, json) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "1e999"),
            (f64::NEG_INFINITY, "-1e999"),
            (f64::NAN, "null"),
        ] {
            assert_eq!(text(float.to_json()), json);
        }
    }
}
