//! Requests by operation and key class, in a form that is easy to compare and to read.

use emulator::{Counters, Operation};

/// `("put", "w", 3)`: three PUTs to the log. In the order of operation and class.
pub type Requests = Vec<(&'static str, String, u64)>;

/// The node's own record, and its look for logs to drain: heartbeats and hints, and one listing every few minutes.
/// They come with time, not with work.
const HEARTBEAT: [(Operation, &str); 2] = [(Operation::Put, "inc"), (Operation::List, "live")];

/// Everything but heartbeats and hints.
pub fn of_work(counters: &Counters) -> Requests {
    let of_work = counters.iter().filter(|(operation, class, _)| !HEARTBEAT.contains(&(*operation, class.as_str())));
    of_work.map(|(operation, class, counter)| (operation.name(), class.to_string(), counter.requests)).collect()
}

/// How many there are of one kind.
pub fn count(requests: &Requests, operation: &str, class: &str) -> u64 {
    let of_kind = requests.iter().filter(|(op, of, _)| *op == operation && of == class);
    of_kind.map(|(_, _, count)| *count).sum()
}

/// What is expected, in the same form.
pub fn expected(requests: &[(&'static str, &str, u64)]) -> Requests {
    requests.iter().map(|(operation, class, count)| (*operation, (*class).to_owned(), *count)).collect()
}

/// The part of a fold: packs, page maps and heads that it writes, reads and deletes, and slots of the log
/// that it makes superfluous.
pub fn is_of_folds((operation, class, _): &(&'static str, String, u64)) -> bool {
    matches!(
        (*operation, class.as_str()),
        ("put", "pack" | "map" | "head") | ("get", "pack" | "map") | ("delete", "pack" | "map" | "w")
    )
}
