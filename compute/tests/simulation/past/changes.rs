//! Forks, restores, undo, deletion and undeletion.

use serde_json::{Value, json};

use super::answers::Made;
use super::ends::Ends;
use super::expiring::is_over;
use super::reading::Moment;
use super::{Leads, Past, Standing};
use crate::client::Client;
use crate::cluster::Answer;

impl Client {
    /// A fork as of now or then, or a restore to a new name, which is the same.
    pub(super) async fn fork(&mut self, name: &str, line: usize) {
        let Some(to) = self.new_name() else { return };
        match self.rng.below(6) {
            0..2 => self.fork_now(name, line, &to).await,
            2 => self.fork_now_while_writing(name, line, &to).await,
            3..5 => {
                let moment = self.draw_moment(line);
                let (path, (body, end)) = (format!("/v1/namespaces/{name}/fork/{to}"), self.with_an_end(&moment.body));
                let answer = self.change(&path, &body).await;
                self.forked_then("fork then", name, &to, &moment, end, &answer);
            }
            _ => {
                let moment = self.draw_moment(line);
                let mut body = moment.body.clone();
                body["to"] = json!(to);
                let answer = self.change(&format!("/v1/namespaces/{name}/restore"), &body).await;
                self.forked_then("restore to a new name", name, &to, &moment, 0, &answer);
            }
        }
    }

    /// Asks for a change until a node says something about the database.
    pub(super) async fn change(&mut self, path: &str, body: &Value) -> Answer {
        let answer = self.persist(async |client: &Client| client.admin("POST", path, body).await).await;
        self.note(format!("{path} {body}: {answer:?}"));
        answer
    }

    async fn fork_now(&mut self, name: &str, line: usize, to: &str) {
        let newest = self.story.past.borrow().family.lines[line].newest;
        let (body, end) = self.with_an_end(&Value::Null);
        let answer = self.change(&format!("/v1/namespaces/{name}/fork/{to}"), &body).await;
        self.forked_now(name, line, to, newest, end, &answer);
    }

    async fn fork_now_while_writing(&mut self, name: &str, line: usize, to: &str) {
        let newest = self.story.past.borrow().family.lines[line].newest;
        let (value, requests) = self.next_write(name);
        let path = format!("/v1/namespaces/{name}/fork/{to}");
        let both = futures_util::future::join(self.pipeline(name, &requests), self.admin("POST", &path, &Value::Null));
        let (wrote, forked) = both.await;
        self.note(format!("{path} beside a write: {forked:?}"));
        self.wrote(name, line, &value, &wrote);
        self.forked_now(name, line, to, newest, 0, &forked);
    }

    /// `newest`: the commit that the fork has at least.
    fn forked_now(&self, name: &str, line: usize, to: &str, newest: u64, end: u64, answer: &Answer) {
        let past = &mut *self.story.past.borrow_mut();
        let verdict = match answer {
            Answer::Done(body) => {
                past.did("fork now");
                let made = Made::of(body);
                let fork = past.family.branch(to, line, made.lsn);
                past.family.lines[fork].id = Some(made.id);
                past.put(to, Leads::To(fork));
                self.ends_then(past, fork, end);
                self.learn(self.judge_life(past, name));
                match made.lsn >= newest {
                    true => Ok(()),
                    false => Err(format!("I1: {to} begins with commit {}, after {newest} of {name} was shown", made.lsn)),
                }
            }
            Answer::Unknown(_) => {
                past.doubt(to, &[Leads::Nowhere, Leads::ToForkOf(line, end)]);
                Ok(())
            }
            Answer::Refused(text) => {
                past.put(to, Leads::Nowhere);
                if is_over(text) { self.judge_too_late(to, end, text) } else { self.judge_error(past, name, text) }
            }
        };
        self.learn(verdict);
    }

    fn forked_then(&self, what: &'static str, name: &str, to: &str, moment: &Moment, end: u64, answer: &Answer) {
        if let Answer::Refused(text) = answer {
            self.story.past.borrow_mut().put(to, Leads::Nowhere);
            if is_over(text) {
                return self.learn(self.judge_too_late(to, end, text));
            }
            return self.learn(self.judge_moment(name, moment, text));
        }
        let past = &mut *self.story.past.borrow_mut();
        let fork = past.family.branch(to, moment.line, moment.lsn);
        self.ends_then(past, fork, end);
        if let Answer::Done(body) = answer {
            past.did(what);
            past.put(to, Leads::To(fork));
            self.learn(self.judge_life(past, name));
            let verdict = self.begins_as_asked(to, moment, &Made::of(body));
            past.family.lines[fork].id = Some(Made::of(body).id);
            self.learn(verdict);
        } else {
            past.doubt(to, &[Leads::Nowhere, Leads::To(fork)]);
        }
    }

    fn begins_as_asked(&self, name: &str, moment: &Moment, made: &Made) -> Result<(), String> {
        match made.lsn == moment.lsn {
            true => Ok(()),
            false => Err(format!("I9: {name} begins with commit {}, not {} as {}", made.lsn, moment.lsn, moment.text)),
        }
    }

    /// In place.
    pub(super) async fn restore(&mut self, name: &str, line: usize) {
        if self.rng.is_one_in(2) {
            // So that moments of what is replaced have known times.
            self.list_history(name, line).await;
        }
        let moment = self.draw_moment(line);
        let answer = self.change(&format!("/v1/namespaces/{name}/restore"), &moment.body).await;
        self.replaced("restore", name, line, &moment, &answer);
    }

    /// Goes back to what a restore has replaced.
    pub(super) async fn undo(&mut self, name: &str, line: usize) {
        let bookmark = {
            let past = self.story.past.borrow();
            past.family.lines[line].undo.clone()
        };
        let Some((was, lsn, bookmark)) = bookmark else { return self.restore(name, line).await };
        let body = if self.rng.is_one_in(2) { json!({ "bookmark": bookmark }) } else { Value::Null };
        let moment = Moment { line: was, lsn, text: bookmark, body };
        let answer = self.change(&format!("/v1/namespaces/{name}/undo"), &moment.body).await;
        self.replaced("undo", name, line, &moment, &answer);
    }

    fn replaced(&self, what: &'static str, name: &str, line: usize, moment: &Moment, answer: &Answer) {
        if let Answer::Refused(text) = answer {
            return self.learn(self.judge_moment(name, moment, text));
        }
        let past = &mut *self.story.past.borrow_mut();
        let new = past.family.branch(name, moment.line, moment.lsn);
        let Answer::Done(body) = answer else {
            past.family.lines[new].ends = past.family.lines[line].ends.clone();
            return past.doubt(name, &[Leads::To(line), Leads::To(new)]);
        };
        past.did(what);
        let made = Made::of(body);
        let begins = self.begins_as_asked(name, moment, &made);
        let replaced = self.put_into_its_place(past, name, line, new, &made, body);
        if past.is_a_reset(line) && moment.line != line {
            past.did("undo of a reset");
        }
        self.learn(begins);
        self.learn(replaced);
    }

    /// `new` has the place of `line`, and its answer says what undoes that.
    pub(super) fn put_into_its_place(
        &self,
        past: &mut Past,
        name: &str,
        line: usize,
        new: usize,
        made: &Made,
        body: &Value,
    ) -> Result<(), String> {
        self.judge_life(past, name)?;
        past.family.lines[new].ends = past.family.lines[line].ends.clone();
        past.family.lines[line].replaced_by = Some(new);
        past.put(name, Leads::To(new));
        let undo = made.undo.as_deref().and_then(|undo| Some((undo.split_once('-')?, undo)));
        let Some(((was, last), bookmark)) = undo else {
            return Err(format!("I1: nothing undoes the restore of {name}: {body}"));
        };
        let (last, newest) = (last.parse::<u64>().expect("an LSN"), past.family.lines[line].newest);
        past.family.lines[new].undo = Some((line, last, bookmark.to_owned()));
        past.family.lines[new].id = Some(made.id.clone());
        past.family.lines[line].id = Some(was.into());
        match last >= newest {
            true => Ok(()),
            false => Err(format!("I1: {name} was replaced as of commit {last}, after {newest} was shown")),
        }
    }

    /// A new database, with the end that it was given.
    fn ends_then(&self, past: &mut Past, line: usize, end: u64) {
        if end > 0 {
            past.did("fork with an end");
            past.family.lines[line].ends = Ends::at(end);
        }
    }

    /// A database that was begun to be deleted is deleted sooner or later, whatever its client hears.
    pub(super) async fn delete(&mut self, name: &str, line: usize) {
        let answer = self.persist(async |client: &Client| client.admin("DELETE", &format!("/v1/namespaces/{name}"), &Value::Null).await).await;
        self.note(format!("delete {name}: {answer:?}"));
        let past = &mut *self.story.past.borrow_mut();
        match answer {
            Answer::Done(_) => {
                past.did("delete");
                past.put(name, Leads::Nowhere);
                past.deleted.insert(name.into(), line);
                if past.retention.is_zero() {
                    // Nothing can be asked of it any more.
                    past.family.lines[line].id = None;
                }
            }
            Answer::Refused(_) | Answer::Unknown(_) => past.doubt(name, &[Leads::To(line), Leads::Nowhere]),
        }
    }

    pub(super) async fn undelete(&mut self) {
        let deleted: Vec<(String, usize)> = {
            let past = self.story.past.borrow();
            let is_free = |name: &String| matches!(past.names[name], Standing::Sure(Leads::Nowhere | Leads::Ended(_)));
            past.deleted.iter().filter(|(name, _)| is_free(name)).map(|(name, line)| (name.clone(), *line)).collect()
        };
        if deleted.is_empty() {
            return;
        }
        let (name, line) = self.rng.pick(&deleted).clone();
        let answer = self.change(&format!("/v1/namespaces/{name}/undelete"), &Value::Null).await;
        let past = &mut *self.story.past.borrow_mut();
        let verdict = match &answer {
            Answer::Done(body) => {
                past.did("undelete");
                let (made, newest) = (Made::of(body), past.family.lines[line].newest);
                let new = past.family.branch(&name, line, made.lsn);
                past.family.lines[new].id = Some(made.id);
                past.family.lines[line].replaced_by = Some(new);
                past.put(&name, Leads::To(new));
                match made.lsn >= newest {
                    true => Ok(()),
                    false => Err(format!("I1: {name} came back as of commit {}, after {newest} was shown", made.lsn)),
                }
            }
            Answer::Unknown(_) => {
                past.doubt(&name, &[Leads::Nowhere, Leads::ToForkOf(line, 0)]);
                Ok(())
            }
            Answer::Refused(text) if is_gone(text) && past.keeps_all() => {
                Err(format!("I8: {name} was deleted, and is gone before its time: {text}"))
            }
            Answer::Refused(_) => Ok(()),
        };
        self.learn(verdict);
    }
}

/// An earlier try may have taken the name for what came to nothing, which is a conflict until its node is over.
fn is_gone(text: &str) -> bool {
    ["SHOAL_INVALID", "SHOAL_NO_SUCH_DATABASE", "SHOAL_CORRUPT"].iter().any(|code| text.contains(code))
}
