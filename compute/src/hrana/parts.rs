//! How much a body takes once it is parsed, seen before that.
//!
//! Most of a usual body is text, which is there once as JSON and once as a value. But `{"stmt":{}},` is a step of a batch,
//! and ten times as large as that text. So what is counted are the parts: whatever becomes an element of a list begins
//! with a brace or a bracket. (Structs may be written as lists.) What has neither is a field, of which each part has a
//! fixed number, or is ignored.

use super::error::HranaError;
use super::request::{BatchCond, BatchStep, NamedArg, StreamRequest};
use super::response::StreamResponse;
use super::result::StmtResult;
use super::value::Value;

/// What a part takes: in its list, which may have room for four; beside what its fields have of their own; and for a
/// step or a request what it comes to.
pub const PART_BYTES: usize = 256;

const VALUES: usize = 4 * size_of::<Value>();
const NAMED: usize = 4 * size_of::<NamedArg>();
/// As they are read and as they are kept.
const CONDITIONS: usize = 4 * (64 + size_of::<BatchCond>());
const STEPS: usize = 4 * size_of::<BatchStep>();
const RESULT: usize = size_of::<Result<StreamResponse, HranaError>>();
const STEP_RESULT: usize = size_of::<Option<StmtResult>>() + size_of::<Option<HranaError>>();
/// What an allocation takes beside itself.
const BLOCK: usize = 32;
/// A short text of an error.
const TEXT: usize = 128;

// A request counts as two.
const _: () = assert!(size_of::<StreamRequest>() + RESULT + BLOCK + TEXT <= 2 * PART_BYTES);
// A list with its only element.
const _: () = assert!(VALUES + BLOCK <= 2 * PART_BYTES && NAMED + BLOCK <= 3 * PART_BYTES);
const _: () = assert!(CONDITIONS + 2 * BLOCK <= 2 * PART_BYTES);
// `{"stmt":{}}` among many, and alone in a batch of a request.
const _: () = assert!(size_of::<BatchStep>() + STEP_RESULT + BLOCK + TEXT <= 2 * PART_BYTES);
const _: () = assert!(size_of::<StreamRequest>() + RESULT + STEPS + STEP_RESULT + 4 * BLOCK + TEXT <= 6 * PART_BYTES);

/// How deep requests stand in the body of a pipeline.
const DEPTH_OF_REQUESTS: usize = 2;

/// A body as it is before it is parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    body_bytes: usize,
    /// Objects and lists. A request counts twice: each is answered.
    pub count: usize,
    /// The longest text with an escape in it.
    escaped_bytes: usize,
}

impl Parts {
    /// Counts those of a body, which need not be JSON: as far as it is, they are what a parser will find.
    pub fn of(body: &[u8]) -> Self {
        let mut parts = Self { body_bytes: body.len(), ..Self::default() };
        let (mut rest, mut depth) = (body, 0_usize);
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']')) {
            let byte = rest[at];
            rest = &rest[at + 1..];
            match byte {
                b'"' => {
                    let (bytes, is_escaped) = text(rest);
                    parts.escaped_bytes = parts.escaped_bytes.max(if is_escaped { bytes } else { 0 });
                    rest = rest.get(bytes + 1..).unwrap_or_default();
                }
                b'{' | b'[' => {
                    parts.count += 1 + usize::from(depth == DEPTH_OF_REQUESTS);
                    depth += 1;
                }
                _ => depth = depth.saturating_sub(1),
            }
        }
        parts
    }

    /// What there is while it is parsed: the body, and the values in it. A text with escapes is gathered in one place before
    /// it is a value, and if it is that of a blob, it is decoded from a second one.
    pub fn bytes_while_parsed(&self) -> usize {
        self.body_bytes + 2 * self.escaped_bytes + self.bytes_when_parsed()
    }

    /// What there is afterwards, without the body.
    pub fn bytes_when_parsed(&self) -> usize {
        self.body_bytes + self.count.saturating_mul(PART_BYTES)
    }
}

/// The length of a text after its opening quote, and whether there are escapes in it.
fn text(rest: &[u8]) -> (usize, bool) {
    let (mut bytes, mut is_escaped) = (0, false);
    while let Some(at) = rest[bytes..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        bytes += at;
        if rest[bytes] == b'"' {
            return (bytes, is_escaped);
        }
        is_escaped = true;
        bytes = (bytes + 2).min(rest.len());
    }
    (rest.len(), is_escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hrana::request::PipelineRequestBody;

    fn parts(body: &str) -> Parts {
        Parts::of(body.as_bytes())
    }

    #[test]
    fn objects_and_lists_outside_of_texts_are_counted_and_requests_twice() {
        for (body, count) in [
            ("", 0),
            ("null", 0),
            (r#"{"requests":[]}"#, 2),
            (r#"{"baton":"{[[","requests":[{"type":"close"},{"type":"close"}]}"#, 6),
            (r#"{"requests":[{"type":"sequence","sql":"\"{\\\"[[\\"},{}]}"#, 6),
            (r#"{"requests":[{"type":"batch","batch":{"steps":[{"stmt":{}},{"stmt":{}}]}}]}"#, 10),
            (r#"[null,[["close"]]]"#, 4),
            // Not JSON, or not all of it.
            (r#"]]}}{"[[["#, 1),
            (r#"{"a\"#, 1),
            ("{{{{[", 6),
        ] {
            assert_eq!(parts(body).count, count, "{body}");
        }
    }

    #[test]
    fn a_text_with_escapes_counts_for_the_place_where_it_is_gathered() {
        let plain = r#"{"requests":[{"type":"sequence","sql":"xxxxxxxx"}]}"#;
        assert_eq!(parts(plain).bytes_while_parsed(), 2 * plain.len() + 4 * PART_BYTES);
        let escaped = plain.replace("xxxxxxxx", r"xxxxxx\\");
        assert_eq!(parts(&escaped).bytes_while_parsed(), 2 * plain.len() + 4 * PART_BYTES + 16);
        assert_eq!(parts(&escaped).bytes_when_parsed(), plain.len() + 4 * PART_BYTES);
    }

    /// What each of these becomes takes several times its text; only parts make it so.
    #[test]
    fn whatever_can_be_in_a_list_is_a_part() {
        for list in [
            r#"{"requests":[@]}"#,
            r#"{"requests":[{"type":"batch","batch":{"steps":[@]}}]}"#,
            r#"{"requests":[{"type":"execute","stmt":{"sql":"","args":[@]}}]}"#,
            r#"{"requests":[{"type":"execute","stmt":{"sql":"","named_args":[@]}}]}"#,
            r#"{"requests":[{"type":"execute","stmt":{"sql":"","replication_index":[@]}}]}"#,
            r#"{"requests":[{"type":"batch","batch":{"steps":[],"replication_index":[@]}}]}"#,
            r#"{"requests":[{"type":"batch","batch":{"steps":[{"stmt":{},"condition":{"type":"or","conds":[@]}}]}}]}"#,
        ] {
            for element in ["null", "0", "-1", "1.5", "true", r#""""#, r#""null""#, r#""close""#] {
                let body = list.replace('@', &format!("{element},{element}"));
                let refused = PipelineRequestBody::parse(body.as_bytes()).expect_err(&body).to_string();
                assert!(refused.contains("invalid type: ") && refused.contains("expected "), "{body}: {refused}");
            }
        }
    }
}
