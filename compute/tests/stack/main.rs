//! How much of a coroutine's stack the deepest statements use.
//!
//! Each [case](cases) nests as deep as it is told. The test finds the deepest nesting that SQLite accepts under
//! the limits that connections have, and measures the stack at every try, the refused ones included. The
//! statements run as a client's do, on a connection of a node's database, down to the page cache below the VFS.
//!
//! `cargo test --release -p compute --test stack -- --nocapture` prints the table.

mod cases;
mod rig;

use compute::limits::STACK_BYTES;

use crate::cases::Case;
use crate::rig::Rig;

/// The share of the stack that may be used, in percent. The rest is for other compilers' frames.
const SHARE_MAX: usize = 75;
/// Deeper than any limit.
const DEPTH_MAX: usize = 4_097;

struct Measured {
    deepest: usize,
    stack_bytes: usize,
    refusal: String,
}

/// Halves the distance between a nesting that works and one that does not.
fn measure(rig: &Rig, case: &Case) -> Measured {
    let (mut works, mut fails) = (0, DEPTH_MAX);
    let mut measured = Measured { deepest: 0, stack_bytes: 0, refusal: String::new() };
    while works + 1 < fails {
        // The first try is the deepest of all.
        let depth = if fails == DEPTH_MAX && works == 0 { DEPTH_MAX - 1 } else { usize::midpoint(works, fails) };
        let (result, stack_bytes) = rig.run((case.statement)(depth));
        measured.stack_bytes = measured.stack_bytes.max(stack_bytes);
        match result {
            Ok(()) => works = depth,
            Err(refusal) => {
                measured.refusal = refusal;
                fails = depth;
            }
        }
    }
    measured.deepest = works;
    measured
}

#[test]
fn the_deepest_statements_leave_a_share_of_the_stack_unused() {
    let rig = Rig::start();
    let (result, at_rest) = rig.run("SELECT 1".into());
    result.expect("a plain statement");
    assert!((1..STACK_BYTES / 8).contains(&at_rest), "the measure itself: {at_rest} bytes for SELECT 1");
    println!("{:<46} {:>7} {:>9}  what ends it", "case", "deepest", "stack");
    println!("{:<46} {:>7} {at_rest:>9}", "SELECT 1", "-");
    let mut wrong = Vec::new();
    for case in cases::all() {
        let (prepared, _) = rig.run(case.schema.clone());
        prepared.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let measured = measure(&rig, &case);
        let refusal: String = measured.refusal.chars().take(70).collect();
        println!("{:<46} {:>7} {:>9}  {refusal}", case.name, measured.deepest, measured.stack_bytes);
        if measured.deepest < case.deepest_min {
            wrong.push(format!("{}: refused at {}: {refusal}", case.name, measured.deepest + 1));
        }
        if measured.stack_bytes * 100 > STACK_BYTES * SHARE_MAX {
            wrong.push(format!("{}: {} of {STACK_BYTES} bytes", case.name, measured.stack_bytes));
        }
    }
    assert!(wrong.is_empty(), "over {SHARE_MAX} % of the stack, or refused too early: {wrong:#?}");
}
