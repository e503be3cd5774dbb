//! One page of ListObjectsV2.
//!
//! A page holds up to `limit` entries in byte order: objects and, when there is a delimiter, the common
//! prefixes that stand for all keys below them. It resumes after the last entry of the page before.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::objects::Object;

/// Marks a continuation token as ours; the rest is the last entry of the page before.
const TOKEN_PREFIX: &str = "after:";

#[derive(Debug, Default)]
pub(crate) struct Query {
    pub prefix: String,
    /// Only entries greater than this are listed.
    pub after: Option<String>,
    pub delimiter: Option<String>,
    pub limit: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Page {
    pub objects: Vec<(String, Object)>,
    pub common_prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub next_token: Option<String>,
}

impl Page {
    pub(crate) fn len(&self) -> usize {
        self.objects.len() + self.common_prefixes.len()
    }
}

/// The entry that a token of a former page resumes after.
pub(crate) fn parse_token(token: &str) -> Option<String> {
    token.strip_prefix(TOKEN_PREFIX).map(str::to_owned)
}

pub(crate) fn page(objects: &BTreeMap<String, Object>, query: &Query) -> Page {
    let mut page = Page::default();
    let mut from = start(query);
    let mut last = String::new();
    loop {
        let mut rest = objects.range::<str, _>((as_str(&from), Bound::Unbounded));
        let Some((key, object)) = rest.next().filter(|(key, _)| key.starts_with(&query.prefix))
        else {
            return page;
        };
        if page.len() == query.limit {
            page.next_token = (query.limit > 0).then(|| format!("{TOKEN_PREFIX}{last}"));
            return page;
        }
        if let Some(common) = common_prefix(key, query) {
            from = after_all_below(common);
            last = common.to_owned();
            page.common_prefixes.push(common.to_owned());
        } else {
            from = Bound::Excluded(key.clone());
            last.clone_from(key);
            page.objects.push((key.clone(), object.clone()));
        }
    }
}

fn start(query: &Query) -> Bound<String> {
    match &query.after {
        // A page that ended with a common prefix has accounted for all keys below it.
        Some(after) if common_prefix(after, query) == Some(after) => after_all_below(after),
        Some(after) if *after >= query.prefix => Bound::Excluded(after.clone()),
        _ => Bound::Included(query.prefix.clone()),
    }
}

/// The part of a key up to the first delimiter after the prefix.
fn common_prefix<'k>(key: &'k str, query: &Query) -> Option<&'k str> {
    let delimiter = query.delimiter.as_deref()?;
    let rest = key.strip_prefix(&query.prefix)?;
    let end = rest.find(delimiter)? + delimiter.len();
    Some(&key[..query.prefix.len() + end])
}

/// Greater than every key that starts with `prefix`. The last character of Unicode sorts after whatever
/// may follow the prefix in a sensible key; ordering is by UTF-8 bytes, which is by code point.
fn after_all_below(prefix: &str) -> Bound<String> {
    Bound::Excluded(format!("{prefix}{}", char::MAX))
}

fn as_str(bound: &Bound<String>) -> Bound<&str> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn objects(keys: &[&str]) -> BTreeMap<String, Object> {
        keys.iter().map(|key| ((*key).to_owned(), Object::new(Bytes::new()))).collect()
    }

    /// Lists all pages; an entry that ends with the delimiter is a common prefix.
    fn all(keys: &[&str], mut query: Query) -> Vec<Vec<String>> {
        let objects = objects(keys);
        let mut pages = Vec::new();
        loop {
            let found = page(&objects, &query);
            let keys = found.objects.into_iter().map(|(key, _)| key);
            let mut entries: Vec<_> = keys.chain(found.common_prefixes).collect();
            entries.sort();
            pages.push(entries);
            let Some(token) = found.next_token else { return pages };
            query.after = parse_token(&token);
        }
    }

    #[test]
    fn pages_hold_each_key_once_in_order() {
        let keys = ["a", "n/1", "n/2", "n/3", "n0", "z"];
        let query = |limit| Query { prefix: "n/".into(), limit, ..Query::default() };
        assert_eq!(all(&keys, query(2)), [vec!["n/1", "n/2"], vec!["n/3"]]);
        assert_eq!(all(&keys, query(3)), [vec!["n/1", "n/2", "n/3"]], "a full last page ends it");
        let after = |after: &str| Query { after: Some(after.into()), ..query(9) };
        assert_eq!(all(&keys, after("n/2")), [vec!["n/3"]]);
        assert_eq!(all(&keys, after("a")), [vec!["n/1", "n/2", "n/3"]]);
        assert_eq!(all(&keys, after("o")), [Vec::<String>::new()]);
        assert_eq!(all(&keys, query(0)), [Vec::<String>::new()], "no keys asked for, no next page");
    }

    #[test]
    fn a_delimiter_rolls_keys_up() {
        let keys = ["a", "b/1", "b/2", "b/c/3", "d", "e/1"];
        let query = |prefix: &str, limit| Query {
            prefix: prefix.into(),
            delimiter: Some("/".into()),
            limit,
            after: None,
        };
        assert_eq!(all(&keys, query("", 9)), [vec!["a", "b/", "d", "e/"]]);
        assert_eq!(all(&keys, query("", 2)), [vec!["a", "b/"], vec!["d", "e/"]]);
        assert_eq!(all(&keys, query("b/", 9)), [vec!["b/1", "b/2", "b/c/"]]);
    }
}
