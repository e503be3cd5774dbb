//! What nodes say of the past and of changes, as a client reads it.

use serde_json::Value;

use super::family::Seen;
use crate::client::rows;

/// A database that a change has made.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub lsn: u64,
    /// The bookmark of what had its place before.
    pub undo: Option<String>,
}

impl Made {
    pub fn of(body: &Value) -> Self {
        let text = |field: &str| body[field].as_str().map(str::to_owned);
        let lsn = body["lsn"].as_u64().unwrap_or_else(|| panic!("no LSN in {body}"));
        Self { id: text("database").unwrap_or_else(|| panic!("no id in {body}")), lsn, undo: text("undo") }
    }
}

/// All that a database holds, by one statement. Each row says which table it is of.
pub const STATE: &str = "SELECT 0, rowid, value, wrote FROM log UNION ALL
    SELECT 1, id, value, CASE WHEN filler IS NULL THEN '' ELSE hex(substr(filler, -8)) || '/' || length(filler) END
    FROM cell ORDER BY 1, 2";

/// The answer to [`STATE`]; `None` if it is an error of its own.
pub fn seen(body: &Value) -> Option<Seen> {
    let lsn = body["lsn"].as_u64()?;
    if body.to_string().contains("no such table") {
        return Some(Seen { lsn, ..Seen::default() });
    }
    let mut seen = Seen { lsn, ..Seen::default() };
    for row in rows(body, 0)? {
        let [table, row @ ..] = <[String; 4]>::try_from(row).ok()?;
        if table == "0" { seen.log.push(row) } else { seen.cells.push(row) }
    }
    Some(seen)
}

/// Whether a refusal is about the database, so that no other node would say anything else.
pub fn is_about_the_database(text: &str) -> bool {
    ["SHOAL_INVALID", "SHOAL_NO_SUCH_DATABASE", "SHOAL_CONFLICT", "SHOAL_CORRUPT"].iter().any(|code| text.contains(code))
}

/// The first and the last LSN of the window that a refusal states.
pub fn window(text: &str) -> Option<(u64, u64)> {
    let after = |marker: &str| text.split_once(marker).map(|(_, rest)| rest);
    if let Some(rest) = after("only LSN ") {
        let only = number(rest)?;
        return Some((only, only));
    }
    let (first, rest) = if let Some(rest) = after("what can be shown is LSN ") {
        (number(rest)?, rest.split_once(" to LSN ")?.1)
    } else {
        let rest = after("what can be restored: ").or_else(|| after("what can be restored is commits "))?;
        (number(rest)?, rest.split_once(" to ")?.1)
    };
    Some((first, number(rest)?))
}

fn number(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::window;

    #[test]
    fn windows_are_read_from_every_refusal() {
        let texts = [
            ("5 is before the retention window of `app`: what can be shown is LSN 7 (2026-01-01T00:00:00Z) to LSN 19 (x)", (7, 19)),
            ("`app` keeps no history, so 3 is gone: only LSN 4 (2026-01-01T00:00:00Z) can be shown. `shoal", (4, 4)),
            ("LSN 3 is outside of what can be restored: 4 to 11", (4, 11)),
            ("that moment is not kept any more; what can be restored is commits 4 to 11, 1 to 2 microseconds", (4, 11)),
        ];
        for (text, expected) in texts {
            assert_eq!(window(text), Some(expected), "{text}");
        }
        assert_eq!(window("the bucket is gone"), None);
    }
}
