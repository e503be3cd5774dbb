//! Hrana over HTTP, against the running binary: what every request does, what a stream keeps and what it must
//! not keep, and how transactions see each other.
//!
//! | file | what |
//! |---|---|
//! | `requests` | each type of request, batches and their conditions, arguments, errors |
//! | `values` | SQL values exactly, in and out |
//! | `cursors` | the lines of a cursor |
//! | `streams` | batons, and connections that go from one client to the next |
//! | `transactions` | visibility, conflicts, turns, time-outs |
//! | `sql` | what SQL there is, and the counters that come with a result |
//! | `places` | how a URL or a header names the database |

mod cursors;
mod places;
mod requests;
mod sql;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
mod values;
