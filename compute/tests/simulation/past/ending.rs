//! The end of a seed: every name leads where it may, as a node without faults shows it, and so does its past.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::{Value, json};

use super::answers::{STATE, seen, window};
use super::family::Seen;
use super::{Leads, Past, Standing};
use crate::cluster::{Answer, Cluster, sleep};
use crate::machine::true_micros;
use crate::rng::Rng;

/// How often the last node is asked before it counts as not serving.
const TRIES: usize = 60;
/// Moments that are looked at of each database.
const MOMENTS: u64 = 4;

/// Asks the last node about a family.
pub struct Examiner<'a> {
    cluster: &'a Cluster,
    past: &'a RefCell<Past>,
    started: tokio::time::Instant,
    rng: Rng,
    broken: Vec<String>,
}

impl<'a> Examiner<'a> {
    pub fn new(cluster: &'a Cluster, past: &'a RefCell<Past>, started: tokio::time::Instant, rng: Rng) -> Self {
        Self { cluster, past, started, rng, broken: Vec::new() }
    }

    /// Everything that is wrong, each named by its invariant.
    pub async fn examine(mut self) -> Vec<String> {
        let names = self.past.borrow().names.clone();
        for (name, standing) in names {
            match self.examine_name(&name, &standing).await {
                Ok(standing) => drop(self.past.borrow_mut().names.insert(name, standing)),
                Err(broken) => self.broken.push(broken),
            }
        }
        self.broken
    }

    /// Deletes some of the databases, or all of them.
    pub async fn delete(mut self, one_in: u64) -> Vec<String> {
        let names = self.past.borrow().names.clone();
        for (name, standing) in names {
            if matches!(standing, Standing::Sure(Leads::Nowhere | Leads::Ended(_))) || !self.rng.is_one_in(one_in) {
                continue;
            }
            let answer = self.insist(async || self.cluster.admin(0, "DELETE", format!("/v1/namespaces/{name}")).await).await;
            let is_gone = |text: &String| text.contains("SHOAL_NO_SUCH_DATABASE");
            match (answer, standing) {
                (Answer::Done(_), Standing::Sure(Leads::To(line))) => {
                    let past = &mut *self.past.borrow_mut();
                    past.deleted.insert(name.clone(), line);
                    past.put(&name, Leads::Nowhere);
                }
                (Answer::Done(_), _) => self.past.borrow_mut().put(&name, Leads::Nowhere),
                (Answer::Refused(text), standing) if is_gone(&text) && self.may_be_gone(&name, &standing) => {
                    self.past.borrow_mut().put(&name, Leads::Nowhere);
                }
                (answer, _) => self.broken.push(format!("I16: {name} cannot be deleted: {answer:?}")),
            }
        }
        self.broken
    }

    fn may_be_gone(&self, name: &str, standing: &Standing) -> bool {
        let now = self.now_micros();
        matches!(standing, Standing::Unsure(_)) || self.past.borrow().ends_of(name).iter().any(|ends| ends.may_be_over(now))
    }

    fn now_micros(&self) -> u64 {
        true_micros(self.started)
    }

    /// Where a name leads, as far as that can be told.
    async fn examine_name(&mut self, name: &str, standing: &Standing) -> Result<Standing, String> {
        let asked = self.now_micros();
        let shown = self.state_of(name).await?;
        let (past, ends) = (self.past, self.past.borrow().ends_of(name));
        if shown.is_none() && ends.iter().any(|ends| ends.may_be_over(self.now_micros())) {
            past.borrow_mut().did("ended at last");
            if let Standing::Sure(Leads::To(line)) = standing {
                past.borrow_mut().deleted.insert(name.into(), *line);
            }
            return Ok(Standing::Sure(Leads::Nowhere));
        }
        if shown.is_some() && !ends.is_empty() && !ends.iter().any(|ends| ends.may_live(asked)) {
            return Err(format!("I8: {name} is there, and its time is up: {ends:?}"));
        }
        match (standing, shown) {
            (Standing::Sure(Leads::To(line)), Some(seen)) => {
                past.borrow_mut().family.check(*line, &seen)?;
                let newest = past.borrow().family.lines[*line].newest;
                if seen.lsn < newest {
                    return Err(format!("I1: {name} ends with commit {}, after {newest} was shown", seen.lsn));
                }
                let mut verdict = self.is_sound(name).await;
                if verdict.is_ok() {
                    verdict = self.examine_moments(name, *line).await;
                }
                // It may end meanwhile.
                if verdict.is_err() && !past.borrow().family.lines[*line].ends.may_be_over(self.now_micros()) {
                    return verdict.map(|()| standing.clone());
                }
                Ok(standing.clone())
            }
            (Standing::Sure(Leads::To(_) | Leads::ToForkOf(..)), None) => Err(format!("I8: {name} is gone")),
            (Standing::Sure(Leads::Nowhere | Leads::Ended(_)), None) => Ok(Standing::Sure(Leads::Nowhere)),
            (Standing::Unsure(leads), None) if leads.contains(&Leads::Nowhere) => Ok(Standing::Sure(Leads::Nowhere)),
            (Standing::Unsure(leads), Some(seen)) => self.one_of(name, leads, &seen),
            (standing, shown) => Err(format!("I12: {name} is {standing:?}, and shows {shown:?}")),
        }
    }

    /// What had no answer is all there, or not at all.
    fn one_of(&self, name: &str, leads: &[Leads], seen: &Seen) -> Result<Standing, String> {
        let past = &mut *self.past.borrow_mut();
        let mut fits = Vec::new();
        let mut why = Vec::new();
        for lead in leads {
            let fit = match *lead {
                Leads::Nowhere | Leads::Ended(_) => Err("it is there".into()),
                Leads::To(line) if seen.lsn < past.family.lines[line].newest => Err(format!("I1: it ends with {}", seen.lsn)),
                Leads::To(line) | Leads::ToForkOf(line, _) => past.family.check(line, seen),
            };
            match fit {
                Ok(()) => fits.push(*lead),
                Err(broken) => why.push(broken),
            }
        }
        match fits.is_empty() {
            true => Err(format!("I12: {name} shows commit {}, which is none of {leads:?}: {why:?}", seen.lsn)),
            false => Ok(Standing::Unsure(fits)),
        }
    }

    /// Some moments, those at both ends of the line among them.
    async fn examine_moments(&mut self, name: &str, line: usize) -> Result<(), String> {
        let (begin, newest) = {
            let family = &self.past.borrow().family;
            (family.begin(line), family.lines[line].newest)
        };
        for at in 0..MOMENTS {
            let lsn = match at {
                0 => begin,
                1 => newest,
                _ => begin + self.rng.below(newest - begin + 1),
            };
            let answer = self.insist(async || self.pipeline(&format!("{name}@{lsn}"), STATE).await).await;
            let past = &mut *self.past.borrow_mut();
            match answer {
                Answer::Done(body) => {
                    let seen = seen(&body).ok_or_else(|| format!("I9: {name}@{lsn}: {body}"))?;
                    if seen.lsn != lsn {
                        return Err(format!("I9: {name}@{lsn} shows commit {}", seen.lsn));
                    }
                    past.family.check(line, &seen)?;
                    past.did("past read at the end");
                }
                Answer::Refused(text) if !past.keeps_all() && window(&text).is_some_and(|(first, _)| lsn < first) => {}
                answer => return Err(format!("I9: {name}@{lsn}, of {begin} to {newest}: {answer:?}")),
            }
        }
        Ok(())
    }

    async fn is_sound(&self, name: &str) -> Result<(), String> {
        match self.insist(async || self.pipeline(name, "PRAGMA integrity_check").await).await {
            Answer::Done(body) if body.to_string().contains("\"ok\"") => Ok(()),
            answer => Err(format!("I9: integrity_check of {name}: {answer:?}")),
        }
    }

    /// What a name shows; `None` if there is no such database.
    async fn state_of(&self, name: &str) -> Result<Option<Seen>, String> {
        match self.insist(async || self.pipeline(name, STATE).await).await {
            Answer::Done(body) => seen(&body).map(Some).ok_or_else(|| format!("I9: {name}: {body}")),
            Answer::Refused(text) if text.contains("SHOAL_NO_SUCH_DATABASE") => Ok(None),
            Answer::Refused(text) if text.contains("SHOAL_CORRUPT") => Err(format!("I8: {name} cannot be read: {text}")),
            answer => Err(format!("I16: nobody serves {name}: {answer:?}")),
        }
    }

    async fn pipeline(&self, database: &str, sql: &str) -> Answer {
        let requests: Value = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        self.cluster.pipeline(0, database, None, &requests).await
    }

    async fn insist(&self, ask: impl AsyncFn() -> Answer) -> Answer {
        for _ in 1..TRIES {
            match ask().await {
                Answer::Refused(text) if !super::answers::is_about_the_database(&text) => {}
                Answer::Unknown(_) => {}
                answer => return answer,
            }
            sleep(Duration::from_secs(1)).await;
        }
        ask().await
    }
}
