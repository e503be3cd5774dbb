//! Files that become databases. A node that dies meanwhile leaves all of one or nothing; whoever asked asks the next one.

use std::time::Duration;

use serde_json::json;

use super::Leads;
use super::answers::{STATE, seen};
use super::files::files;
use crate::client::Client;
use crate::cluster::Answer;

/// How often an import is begun.
const TRIES: u64 = 10;
/// When a node dies in the middle of one, at the latest.
const DEATH_MILLIS: u64 = 120;
/// One in so many files is the largest.
const LARGE_ONE_IN: u64 = 12;

impl Client {
    pub(super) async fn import(&mut self) {
        let Some(to) = self.new_name() else { return };
        let (files, is_large) = (files(), self.rng.is_one_in(LARGE_ONE_IN));
        let file = if is_large { &files[files.len() - 1] } else { self.rng.pick(&files[..files.len() - 1]) };
        let lsn = u64::from(file.page_count.div_ceil(pageserver::import::PACK_PAGES));
        let line = self.story.past.borrow_mut().family.bring(&to, file.rows.clone(), lsn);
        let mut was_cut_off = false;
        for _ in 0..TRIES {
            self.turn_to_any();
            let dies_after = self.rng.is_one_in(4).then(|| Duration::from_millis(self.rng.below(DEATH_MILLIS)));
            let answer = self.import_file(&to, file, dies_after).await;
            self.note(format!("import {to} ({} pages): {answer:?}", file.page_count));
            if self.imported(&to, line, lsn, &answer, was_cut_off) {
                return;
            }
            was_cut_off |= matches!(answer, Answer::Unknown(_));
            self.refused().await;
        }
        let leads = if was_cut_off { vec![Leads::Nowhere, Leads::To(line)] } else { vec![Leads::Nowhere] };
        self.story.past.borrow_mut().doubt(&to, &leads);
        self.look_for(&to, line).await;
    }

    /// Takes the answer. `false`: it is not there yet, as far as that is known.
    fn imported(&self, to: &str, line: usize, lsn: u64, answer: &Answer, was_cut_off: bool) -> bool {
        let past = &mut *self.story.past.borrow_mut();
        match answer {
            Answer::Done(body) => {
                past.did(if was_cut_off { "import begun anew" } else { "import" });
                past.put(to, Leads::To(line));
                if body["lsn"] != lsn {
                    self.breaks(format!("I9: {to} was imported as commit {body}, not {lsn}"));
                }
            }
            Answer::Refused(text) if text.contains("SHOAL_CONFLICT") => {
                // The name is new: what has it is what was cut off.
                match was_cut_off {
                    true => past.did("import found done"),
                    false => self.breaks(format!("I11: {to} is said to exist, and nothing made it: {text}")),
                }
                past.put(to, Leads::To(line));
            }
            Answer::Refused(text) if text.contains("SHOAL_INVALID") || text.contains("SHOAL_CORRUPT") => {
                self.breaks(format!("I9: {to} was not imported: {text}"));
                past.doubt(to, &[Leads::Nowhere, Leads::To(line)]);
            }
            Answer::Refused(_) => return false,
            Answer::Unknown(_) => {
                past.did("import cut off");
                return false;
            }
        }
        true
    }

    /// What was cut off is all there, or cannot be seen.
    async fn look_for(&mut self, name: &str, line: usize) {
        let answer = self.pipeline(name, &json!([{"type": "execute", "stmt": {"sql": STATE}}])).await;
        let Answer::Done(body) = answer else { return };
        let past = &mut *self.story.past.borrow_mut();
        let verdict = match seen(&body) {
            None => Err(format!("I12: {name} is there, and cannot be read: {body}")),
            Some(seen) => past.family.check(line, &seen),
        };
        past.put(name, Leads::To(line));
        self.learn(verdict);
    }
}
