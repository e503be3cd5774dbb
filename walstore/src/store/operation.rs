//! Names of requests and classes of keys, for counters and traces.

use std::fmt;

/// One kind of request to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Get,
    GetRange,
    Put,
    Delete,
    List,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::GetRange => "get-range",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::List => "list",
        })
    }
}

/// What sort of object a key (or the prefix of a listing) is about: `head`, `pack` and `map` for those of
/// a database, else the first part of the key (`w`, `inc`, `live`, …).
///
/// The rule is by form alone; the crates that own the keys document their meaning.
pub fn key_class(key: &str) -> &str {
    let mut parts = key.split('/');
    let first = parts.next().unwrap_or_default();
    if first != "t" {
        return first;
    }
    match (parts.nth(2), parts.next()) {
        (Some("head"), None) => "head",
        (Some("p"), Some(_)) => "pack",
        (Some("m"), Some(_)) => "map",
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::key_class;

    #[test]
    fn a_class_is_the_first_part_except_for_the_objects_of_a_database() {
        assert_eq!(key_class("w/3f/0a/00000001"), "w");
        assert_eq!(key_class("meta/cluster"), "meta");
        assert_eq!(key_class("t/3f/0a/head"), "head");
        assert_eq!(key_class("t/3f/0a/p/1-2-3"), "pack");
        assert_eq!(key_class("t/3f/0a/m/1-2"), "map");
        assert_eq!(key_class("t/3f/0a/head/more"), "t");
        assert_eq!(key_class("t/3f"), "t");
        assert_eq!(key_class(""), "");
    }
}
