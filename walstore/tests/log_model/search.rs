//! Breadth-first search over all states, so that a violation comes with a shortest history.

use std::collections::{BTreeSet, VecDeque};

use crate::rules::Invariant;
use crate::seal::Finishes;
use crate::world::{Step, World};

/// What a search found.
pub struct Found {
    pub states: usize,
    pub violation: Option<Violation>,
}

/// An invariant that does not hold, and the steps that lead there.
pub struct Violation {
    pub invariant: Invariant,
    pub history: Vec<Step>,
}

/// Which invariants a search looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    All,
    /// Only those whose failure is the loss of a commit: shows what a broken fence leads to.
    Losses,
}

/// Visits every state that can be reached from `start`, or stops at the first violation.
pub fn explore(start: World, watch: Watch) -> Found {
    let mut seen = BTreeSet::from([start.key()]);
    let mut finishes = Finishes::default();
    // How each state was reached: from which, by which step.
    let mut reached = vec![None];
    let mut queue = VecDeque::from([(0, start)]);
    while let Some((number, world)) = queue.pop_front() {
        for (step, next) in world.successors() {
            if !seen.insert(next.key()) {
                continue;
            }
            reached.push(Some((number, step)));
            let broken = next.broken(&world, watch);
            let mut stuck = || watch == Watch::All && !finishes.from(&next);
            let Some(invariant) = broken.or_else(|| stuck().then_some(Invariant::I16)) else {
                queue.push_back((reached.len() - 1, next));
                continue;
            };
            let history = history(&reached);
            return Found { states: seen.len(), violation: Some(Violation { invariant, history }) };
        }
    }
    Found { states: seen.len(), violation: None }
}

fn history(reached: &[Option<(usize, Step)>]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = reached.len() - 1;
    while let Some((before, step)) = reached[at] {
        steps.push(step);
        at = before;
    }
    steps.reverse();
    steps
}
