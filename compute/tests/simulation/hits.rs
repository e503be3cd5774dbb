//! Which faults hit what a node was doing: a table of (request × fault).

use std::collections::BTreeMap;

use walstore::store::{Op, TraceLine};

/// Counts by (what was asked of the bucket, what went wrong).
pub type Hits = BTreeMap<(String, String), u64>;

/// What a request was for, by operation and kind of key.
pub fn purpose(line: &TraceLine) -> String {
    let kind = match line.key.split('/').next().unwrap_or_default() {
        "w" => "slot",
        "x" => "side object",
        "b" => "bundle",
        "inc" => "incarnation",
        "live" => "live marker",
        "due" => "due marker",
        "n" => "name",
        "t" if line.key.ends_with("/head") => "head",
        "t" if line.key.contains("/p/") => "pack",
        "t" => "page map",
        other => other,
    };
    let op = match line.op {
        Op::Get => "get",
        Op::GetRange => "get range",
        Op::Put => "put",
        Op::Delete => "delete",
        Op::List => "list",
    };
    format!("{kind}: {op}")
}

pub fn print(hits: &Hits) {
    let faults: std::collections::BTreeSet<&String> = hits.keys().map(|(_, fault)| fault).collect();
    let purposes: std::collections::BTreeSet<&String> = hits.keys().map(|(purpose, _)| purpose).collect();
    print!("{:<24}", "");
    faults.iter().for_each(|fault| print!("{fault:>17}"));
    println!();
    for purpose in purposes {
        print!("{purpose:<24}");
        for fault in &faults {
            print!("{:>17}", hits.get(&(purpose.clone(), (*fault).clone())).copied().unwrap_or_default());
        }
        println!();
    }
}
