//! Writing to databases, and reading them as they are and as they were.

use compute::moment::{parse_time, time_text};
use serde_json::{Value, json};

use super::answers::{STATE, is_about_the_database, seen, window};
use super::Past;
use super::family::{CELLS, Sent};
use crate::client::{Client, Outcome, is_ok};
use crate::cluster::{Answer, says_unknown};

/// How often a request is sent again that some node refuses for its own reasons.
const TRIES: u64 = 8;

/// A moment of a line, as a client asks for it, and the commit that it means.
#[derive(Clone, Debug)]
pub struct Moment {
    pub line: usize,
    pub lsn: u64,
    /// As a URL has it.
    pub text: String,
    /// As the body of a change has it.
    pub body: Value,
}

impl Client {
    /// Asks one node after the other, until one says something about the database.
    pub(super) async fn persist(&mut self, mut ask: impl AsyncFnMut(&Self) -> Answer) -> Answer {
        for _ in 1..TRIES {
            match ask(self).await {
                Answer::Refused(text) if !is_about_the_database(&text) => self.refused().await,
                answer => return answer,
            }
        }
        ask(self).await
    }

    /// One transaction.
    pub(super) fn next_write(&mut self, name: &str) -> (String, Value) {
        let (value, cell) = (self.next_id(), self.rng.below(CELLS));
        let bytes = match self.rng.below(8) {
            0 => self.rng.between(1, 60_000),
            1 | 2 => self.rng.between(1, 100),
            _ => self.rng.between(1, 5_000),
        };
        let sent = Sent::new(name, cell, bytes);
        self.story.past.borrow_mut().family.send(&value, sent);
        let sql = format!("INSERT INTO log(value, cell, bytes) VALUES ('{value}', {cell}, {bytes})");
        (value, json!([{"type": "execute", "stmt": {"sql": sql}}]))
    }

    pub(super) async fn write(&mut self, name: &str, line: usize) {
        let (value, requests) = self.next_write(name);
        let answer = self.persist(async |client: &Client| client.pipeline(name, &requests).await).await;
        self.wrote(name, line, &value, &answer);
    }

    /// Takes the answer to a write.
    pub(super) fn wrote(&self, name: &str, line: usize, value: &str, answer: &Answer) {
        let past = &mut *self.story.past.borrow_mut();
        let (outcome, verdict) = match answer {
            Answer::Done(body) if is_ok(body, 0) => {
                past.did("write");
                let lsn = body["lsn"].as_u64().expect("an answer says what it shows");
                let verdict = self.judge_life(past, name);
                (format!("commit {lsn}"), verdict.and(past.family.acknowledge(line, lsn, value)))
            }
            Answer::Done(body) if says_unknown(body) => ("unknown".into(), Ok(())),
            Answer::Unknown(_) => ("unknown".into(), Ok(())),
            Answer::Done(body) => {
                past.family.learn_outcome(value, Outcome::Refused);
                (format!("refused: {body}"), self.judge_error(past, name, &body.to_string()))
            }
            Answer::Refused(text) => {
                past.family.learn_outcome(value, Outcome::Refused);
                (format!("refused: {text}"), self.judge_error(past, name, text))
            }
        };
        self.note(format!("write {value} to {name}: {outcome}"));
        self.learn(verdict);
    }

    /// What nobody may say of a database that is there: nothing damages the bucket.
    pub(super) fn judge_error(&self, past: &mut Past, name: &str, text: &str) -> Result<(), String> {
        if text.contains("SHOAL_CORRUPT") {
            return Err(format!("I10: {name} is said to be damaged: {text}"));
        }
        if text.contains("SHOAL_NO_SUCH_DATABASE") && !self.has_ended(past, name, text) {
            return Err(format!("I1: {name} is there, and is said not to be: {text}"));
        }
        Ok(())
    }

    pub(super) async fn read_now(&mut self, name: &str, line: usize) {
        let newest = self.story.past.borrow().family.lines[line].newest;
        let requests = json!([{"type": "execute", "stmt": {"sql": STATE}}]);
        let answer = self.persist(async |client: &Client| client.pipeline(name, &requests).await).await;
        let past = &mut *self.story.past.borrow_mut();
        let verdict = match &answer {
            Answer::Done(body) => match seen(body) {
                None => self.judge_error(past, name, &body.to_string()),
                Some(seen) => {
                    self.note(format!("read {name}: commit {}, last {:?}", seen.lsn, seen.log.last()));
                    past.did("read");
                    self.learn(self.judge_copy(past, name, body["staleness_millis"].as_u64()));
                    let is_stale = past.may_be_stale || !body["staleness_millis"].is_null();
                    match past.family.check(line, &seen) {
                        Ok(()) if is_stale || seen.lsn >= newest => Ok(()),
                        Ok(()) => Err(format!("I4: {name} shows commit {}, after {newest} was shown", seen.lsn)),
                        // What had the name before may be shown for a moment.
                        Err(broken) => {
                            let former = if is_stale { past.former(line) } else { Vec::new() };
                            let fits = former.into_iter().any(|former| past.family.check(former, &seen).is_ok());
                            if fits { Ok(()) } else { Err(broken) }
                        }
                    }
                }
            },
            Answer::Refused(text) | Answer::Unknown(text) => self.judge_error(past, name, text),
        };
        self.learn(verdict);
    }

    /// Draws a moment that is known to mean one commit, within the window or not.
    pub(super) fn draw_moment(&mut self, line: usize) -> Moment {
        let story = self.story.clone();
        let past = story.past.borrow();
        let former = past.former(line);
        let of = if !former.is_empty() && self.rng.is_one_in(4) { *self.rng.pick(&former) } else { line };
        let (begin, newest) = (past.family.begin(of), past.family.lines[of].newest);
        let lsn = match self.rng.below(6) {
            0 => self.rng.below(newest + 1),
            1 => newest,
            2 => begin,
            _ => begin + self.rng.below(newest - begin + 1),
        };
        // A time before the next commit's means this one, also if another line has had the name since. When the first commit of
        // a line that was made from another one came to this name, nobody knows.
        let is_in_time = past.family.lines[of].from.is_none() || lsn > begin;
        let was_shown = of == line || past.family.predecessors(line).contains(&of);
        let time = past.family.time(of, lsn).filter(|_| is_in_time && was_shown && lsn >= begin);
        if let Some(time) = time.filter(|_| self.rng.is_one_in(2)) {
            let next = past.family.time(of, lsn + 1).unwrap_or(time + 1);
            let text = time_text(time + self.rng.below(next - time));
            return Moment { line: of, lsn, body: json!({ "timestamp": text }), text };
        }
        let id = past.family.lines[of].id.clone();
        if let Some(id) = id.filter(|_| of != line || self.rng.is_one_in(4)) {
            let text = format!("{id}-{lsn}");
            return Moment { line: of, lsn, body: json!({ "bookmark": text }), text };
        }
        Moment { line: of, lsn, text: lsn.to_string(), body: json!({ "lsn": lsn }) }
    }

    pub(super) async fn read_then(&mut self, name: &str, line: usize) {
        // Any node may show what is folded.
        self.turn_to_any();
        let moment = self.draw_moment(line);
        let of = format!("{name}@{}", moment.text);
        let requests = json!([{"type": "execute", "stmt": {"sql": STATE}}]);
        let answer = self.persist(async |client: &Client| client.pipeline(&of, &requests).await).await;
        let verdict = match &answer {
            Answer::Done(body) => match seen(body) {
                None => self.judge_moment(name, &moment, &body.to_string()),
                Some(seen) => {
                    self.note(format!("read {of}: commit {}, last {:?}", seen.lsn, seen.log.last()));
                    let past = &mut *self.story.past.borrow_mut();
                    past.did("past read");
                    if moment.line != line && moment.body["timestamp"].is_string() {
                        past.did("past read of a former database by time");
                    }
                    self.learn(self.judge_life(past, name));
                    match seen.lsn == moment.lsn {
                        true => past.family.check(moment.line, &seen),
                        false => Err(format!("I9: {of} shows commit {} instead of {}", seen.lsn, moment.lsn)),
                    }
                }
            },
            Answer::Refused(text) | Answer::Unknown(text) => self.judge_moment(name, &moment, text),
        };
        self.learn(verdict);
    }

    /// Whether a moment may be refused like that.
    pub(super) fn judge_moment(&self, name: &str, moment: &Moment, text: &str) -> Result<(), String> {
        let Moment { line, lsn, text: asked, .. } = moment;
        let past = &mut *self.story.past.borrow_mut();
        self.judge_error(past, name, text)?;
        if !text.contains("SHOAL_INVALID") {
            return Ok(());
        }
        past.did("moment refused");
        let (begin, newest) = (past.family.begin(*line), past.family.lines[*line].newest);
        self.note(format!("{name}@{asked} (commit {lsn} of {begin} to {newest}) is refused: {text}"));
        let Some((first, last)) = window(text) else {
            return match past.keeps_all() {
                true => Err(format!("I9: {name}@{asked} is refused without a window: {text}")),
                // What a deleted database held is gone.
                false => Ok(()),
            };
        };
        if (first..=last).contains(lsn) {
            return Err(format!("I9: {name}@{asked} means commit {lsn}, and is refused though it can be shown: {text}"));
        }
        if *lsn > last {
            return Err(format!("I1: {name}@{asked} means commit {lsn}, which is said not to be there: {text}"));
        }
        if past.keeps_all() && *lsn >= begin {
            return Err(format!("I9: {name}@{asked} means commit {lsn}, which is gone before its time: {text}"));
        }
        Ok(())
    }

    /// Learns what its moments are called.
    pub(super) async fn list_history(&mut self, name: &str, line: usize) {
        let newest = self.story.past.borrow().family.lines[line].newest;
        let path = format!("/v1/namespaces/{name}/history?limit=1000");
        let answer = self.persist(async |client: &Client| client.admin("GET", &path, &Value::Null).await).await;
        let verdict = match &answer {
            Answer::Done(body) => self.learn_history(name, line, newest, body),
            Answer::Refused(text) | Answer::Unknown(text) => {
                self.judge_error(&mut self.story.past.borrow_mut(), name, text)
            }
        };
        self.learn(verdict);
    }

    fn learn_history(&self, name: &str, line: usize, newest: u64, body: &Value) -> Result<(), String> {
        let past = &mut *self.story.past.borrow_mut();
        past.did("listing");
        self.judge_life(past, name)?;
        let commits = body["history"].as_array().expect("a list of commits");
        let lsns: Vec<u64> = commits.iter().filter_map(|commit| commit["lsn"].as_u64()).collect();
        self.note(format!("history of {name}: {:?} to {:?}", lsns.last(), lsns.first()));
        let (Some(oldest), Some(last)) = (lsns.last(), lsns.first()) else {
            return Err(format!("I9: {name} has no history: {body}"));
        };
        if !lsns.iter().rev().copied().eq(*oldest..=*last) {
            return Err(format!("I9: the history of {name} has gaps: {lsns:?}"));
        }
        if *last < newest && !past.may_be_stale {
            return Err(format!("I1: the history of {name} ends with commit {last}, after {newest} was shown"));
        }
        let begin = past.family.begin(line);
        if past.keeps_all() && *oldest > begin {
            return Err(format!("I9: the history of {name} begins with commit {oldest}, not {begin}"));
        }
        for commit in commits {
            let (lsn, time) = (commit["lsn"].as_u64().expect("an LSN"), commit["time"].as_str().expect("a time"));
            // Before the first commit there is no time, but one of creation.
            if lsn > 0 {
                past.family.learn_time(line, lsn, parse_time(time).expect("a time of our own"))?;
            }
            let bookmark = commit["bookmark"].as_str().expect("a bookmark");
            let id = bookmark.split_once('-').expect("an id and an LSN").0;
            match &past.family.lines[line].id {
                Some(known) if known != id => return Err(format!("I2: {name} is {known}, and its history that of {id}")),
                _ => past.family.lines[line].id = Some(id.into()),
            }
        }
        Ok(())
    }
}
