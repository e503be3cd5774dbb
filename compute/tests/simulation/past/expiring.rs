//! Databases with an end.

use compute::moment::{parse_time, time_text};
use serde_json::{Value, json};

use super::{Leads, Past, Standing};
use super::ends::Ends;
use crate::client::Client;
use crate::cluster::Answer;

/// How far in the future ends are, in microseconds.
const SOON: (u64, u64) = (1_000_000, 30_000_000);
/// Who only reads a database may hear so late that its end was changed.
const HEARSAY_MICROS: u64 = 10_000_000;

impl Client {
    /// A time that is to be an end.
    pub(super) fn draw_end(&mut self) -> u64 {
        self.now_micros() + self.rng.between(SOON.0, SOON.1)
    }

    /// Gives a database an end, another one, or none.
    pub(super) async fn set_end(&mut self, name: &str, line: usize) {
        let ends = self.story.past.borrow().family.lines[line].ends.clone();
        let end = if !ends.is_never() && self.rng.is_one_in(2) { 0 } else { self.draw_end() };
        let text = if end == 0 { "never".to_owned() } else { time_text(end) };
        let (path, body) = (format!("/v1/namespaces/{name}/retention"), json!({ "expires": text }));
        let answer = self.change(&path, &body).await;
        let now = self.now_micros();
        let past = &mut *self.story.past.borrow_mut();
        past.family.lines[line].end_set_micros = now;
        let verdict = match &answer {
            Answer::Done(body) => {
                past.did(if end == 0 { "end taken back" } else { "end set" });
                let told = body["expires"].as_str().map_or(0, |text| parse_time(text).expect("a time of our own"));
                let mut verdict = Ok(());
                if told != end {
                    verdict = Err(format!("I12: {name} was to end at {text}, and is said to at {body}"));
                }
                past.family.lines[line].ends = if end == 0 { Ends::default() } else { Ends::at(end) };
                verdict
            }
            Answer::Unknown(_) => {
                past.family.lines[line].ends.or(end);
                Ok(())
            }
            Answer::Refused(text) if is_over(text) => self.judge_too_late(name, end, text),
            Answer::Refused(text) => self.judge_error(past, name, text),
        };
        self.learn(verdict);
    }

    /// Whether an end may be refused as one that is over.
    pub(super) fn judge_too_late(&self, name: &str, end: u64, text: &str) -> Result<(), String> {
        let may_be = self.clocks.get().is_none_or(|clocks| clocks.allow_the_end(&Ends::at(end)));
        if may_be { Ok(()) } else { Err(format!("I12: {name} cannot end at {end}: {text}")) }
    }

    /// Whether the time of what this name leads to may be up for the node that was asked last.
    pub(super) fn may_be_over(&self, past: &Past, name: &str) -> bool {
        self.clocks.get().is_none_or(|clocks| past.ends_of(name).iter().any(|ends| clocks.allow_the_end(ends)))
    }

    /// Whether a node may say that there is no such database, because its time is up.
    pub(super) fn has_ended(&self, past: &mut Past, name: &str, text: &str) -> bool {
        // The second is what a fork is told of its parent.
        if !text.contains("SHOAL_NO_SUCH_DATABASE") && !text.contains("was forked from is gone") {
            return false;
        }
        if !self.may_be_over(past, name) {
            return false;
        }
        let Some(clocks) = self.clocks.get() else { return true };
        let ends = past.ends_of(name);
        past.did("ended");
        if let Standing::Sure(Leads::To(line)) = past.names[name]
            && ends.iter().all(|ends| !ends.may_live(clocks.ended.truly))
        {
            self.note(format!("{name} has ended"));
            past.put(name, Leads::Ended(line));
            past.deleted.insert(name.into(), line);
        }
        true
    }

    /// Whether a node may show what this name leads to.
    pub(super) fn judge_life(&self, past: &mut Past, name: &str) -> Result<(), String> {
        self.judge_copy(past, name, None)
    }

    /// The same of one that says as of when it is: it may not have heard of an end that was set after that.
    pub(super) fn judge_copy(&self, past: &mut Past, name: &str, staleness_millis: Option<u64>) -> Result<(), String> {
        let ends = past.ends_of(name);
        let Some(clocks) = self.clocks.get() else { return Ok(()) };
        if ends.iter().any(|ends| !ends.is_never()) {
            past.did("served before its end");
        }
        if let (Some(millis), Standing::Sure(Leads::To(line))) = (staleness_millis, &past.names[name])
            && past.family.lines[*line].end_set_micros + 1_000 * millis + HEARSAY_MICROS > clocks.began.truly
        {
            return Ok(());
        }
        match ends.is_empty() || ends.iter().any(|ends| clocks.allow_life(ends)) {
            true => Ok(()),
            false => Err(format!("I8: {name} is shown, and its time is up: {ends:?}, asked at {:?}", clocks.began)),
        }
    }

    /// The body of a fork, sometimes with an end.
    pub(super) fn with_an_end(&mut self, body: &Value) -> (Value, u64) {
        if !self.rng.is_one_in(3) {
            return (body.clone(), 0);
        }
        let end = self.draw_end();
        let mut body = if body.is_null() { json!({}) } else { body.clone() };
        body["expires"] = time_text(end).into();
        (body, end)
    }
}

/// Whether a refusal is of an end that is over.
pub fn is_over(text: &str) -> bool {
    text.contains("is over by now")
}
