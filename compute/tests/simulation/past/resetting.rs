//! Forks that go back to what their parents are by now.

use serde_json::Value;

use super::answers::Made;
use super::{Leads, Standing};
use crate::client::Client;
use crate::cluster::Answer;

impl Client {
    /// Puts the present state of its parent into the place of a fork.
    pub(super) async fn reset(&mut self, name: &str, line: usize) {
        // The parent, if it is known what its name leads to; what has the place of its line.
        let (parent, source) = {
            let past = self.story.past.borrow();
            let Some(parent) = past.family.parent(line) else { return };
            let name = past.family.lines[parent].name.clone();
            match past.names[&name] {
                Standing::Sure(Leads::To(now)) if past.family.successor(parent) == now => (name, Some(now)),
                // It may have been brought back by what nobody was told of.
                Standing::Sure(Leads::To(now)) if past.family.goes_back_to(now, parent) => return,
                Standing::Sure(Leads::To(_)) => (name, None),
                Standing::Sure(Leads::Nowhere) => (name, None),
                Standing::Sure(_) | Standing::Unsure(_) => return,
            }
        };
        // Both have to be on one node. What is written there then is not folded yet.
        self.give_up(&parent).await;
        if let Some(source) = source.filter(|_| self.rng.is_one_in(2)) {
            self.write(&parent, source).await;
        }
        let newest = source.map(|source| self.story.past.borrow().family.lines[source].newest);
        let answer = self.change(&format!("/v1/namespaces/{name}/reset"), &Value::Null).await;
        self.was_reset(name, line, &parent, source.zip(newest), &answer);
        let now = match self.story.past.borrow().names[name] {
            Standing::Sure(Leads::To(now)) => now,
            _ => return,
        };
        if now != line && self.rng.is_one_in(3) {
            self.undo(name, now).await;
        }
    }

    /// `source`: what the parent's name leads to, if that is what the fork is to be reset to, and its newest commit.
    fn was_reset(&self, name: &str, line: usize, parent: &str, source: Option<(usize, u64)>, answer: &Answer) {
        let past = &mut *self.story.past.borrow_mut();
        let verdict = match (answer, source) {
            (Answer::Refused(text), None) if text.contains("SHOAL_INVALID") => {
                past.did("reset without a parent");
                Ok(())
            }
            (Answer::Refused(text), _) if self.has_ended(past, parent, text) => Ok(()),
            (Answer::Refused(text), Some(_)) if text.contains("SHOAL_INVALID") => {
                Err(format!("I8: {name} cannot be reset to {parent}, which is there: {text}"))
            }
            (Answer::Refused(text), _) => self.judge_error(past, name, text),
            (Answer::Done(body), None) => Err(format!("I8: {name} was reset to {parent}, which is gone: {body}")),
            (Answer::Unknown(_), None) => Ok(()),
            (Answer::Unknown(_), Some((source, _))) => {
                let end = past.family.lines[line].ends.clone();
                // What is not known of its end is left to others.
                if end.is_never() {
                    past.doubt(name, &[Leads::To(line), Leads::ToForkOf(source, 0)]);
                } else {
                    past.doubt(name, &[Leads::Nowhere, Leads::To(line), Leads::ToForkOf(source, 0)]);
                }
                Ok(())
            }
            (Answer::Done(body), Some((source, newest))) => {
                past.did("reset");
                let made = Made::of(body);
                let new = past.family.branch(name, source, made.lsn);
                let undo = self.put_into_its_place(past, name, line, new, &made, body);
                match made.lsn >= newest {
                    true => undo,
                    false => Err(format!("I1: {name} was reset to commit {}, after {newest} of {parent} was shown", made.lsn)),
                }
            }
        };
        self.learn(verdict);
    }
}
