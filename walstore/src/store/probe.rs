//! Asks a store to prove that it keeps the rules that commits depend on.
//!
//! Some stores accept `If-None-Match` and `If-Match` on a PUT and ignore them; on those, two nodes would
//! own one slot of a log, and acknowledged commits would be lost. So the first use of a store runs this,
//! under keys of its own (`probe/<nonce>/…`), which it removes. Later uses rely on a record of the
//! [`subject`] that passed.
//!
//! A store that answers "not now" is asked again a few times. A write without an answer is settled as the
//! protocol does it: by what is there afterwards.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::limits::{PROBE_RACERS, PROBE_TRIES};
use super::{Condition, ETag, Key, Object, Put, Store, StoreError, StoreErrorKind};
use crate::seam::Seam;

/// Raised when the probe asks for more, so that stores are asked again.
const PROBE_VERSION: u32 = 1;

/// Why a store cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// The store breaks a rule. No configuration of Shoal helps.
    #[error(
        "{store} cannot be used, because it breaks the rule \"{rule}\": {observed}. Without this rule {consequence}"
    )]
    Broken { store: String, rule: Rule, observed: String, consequence: &'static str },
    /// The store could not be asked.
    #[error("cannot check whether {store} keeps the rules that commits depend on: {error}")]
    Unanswered { store: String, error: StoreError },
}

/// What Shoal needs of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    ReadsSeeWrites,
    CreateIsRefused,
    MatchWrites,
    StaleMatchIsRefused,
    MatchNeedsAnObject,
    OneCreatorWins,
    OneMatchWins,
    RangesAreExact,
    DeletesAreSeen,
}

impl Rule {
    fn consequence(self) -> &'static str {
        match self {
            Self::CreateIsRefused | Self::OneCreatorWins => {
                "two nodes could write the same slot of a log, and acknowledged commits would be lost"
            }
            Self::StaleMatchIsRefused | Self::MatchNeedsAnObject | Self::OneMatchWins => {
                "a node that lost a database could go on writing to it, and its history would fork"
            }
            Self::MatchWrites => "no database could ever change",
            Self::ReadsSeeWrites | Self::DeletesAreSeen => {
                "a node could act on a state that is long past"
            }
            Self::RangesAreExact => "pages could not be read one by one",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadsSeeWrites => "a read returns the last write, with the same ETag",
            Self::CreateIsRefused => "a PUT with If-None-Match: * is refused if the object exists",
            Self::MatchWrites => "a PUT with If-Match succeeds if the object has that ETag",
            Self::StaleMatchIsRefused => {
                "a PUT with If-Match is refused if the object has another ETag"
            }
            Self::MatchNeedsAnObject => "a PUT with If-Match is refused if there is no object",
            Self::OneCreatorWins => {
                "of PUTs with If-None-Match: * at the same time exactly one succeeds"
            }
            Self::OneMatchWins => {
                "of PUTs with the same If-Match at the same time exactly one succeeds"
            }
            Self::RangesAreExact => "a GET with a Range returns exactly those bytes",
            Self::DeletesAreSeen => "a deleted object is gone at once",
        })
    }
}

/// What a successful probe is valid for: this store as it is described, this object format, this probe.
/// Record it where the store can show it later, and skip the probe while it is equal.
pub fn subject(store: &dyn Store, format_version: u32) -> String {
    let subject = format!("{PROBE_VERSION}\n{format_version}\n{}", store.describe());
    blake3::hash(subject.as_bytes()).to_hex()[..32].to_owned()
}

/// Checks every [`Rule`]: about 90 small requests, of which most run at the same time.
pub async fn probe(store: &dyn Store, seam: &Seam) -> Result<(), ProbeError> {
    let nonce = seam.random_id().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let key = |name: &str| Key::new(format!("probe/{nonce}/{name}"));
    let probe = Probe { store, seam };
    let result = probe.run(&key("one"), &key("race"), &key("none")).await;
    for name in ["one", "race", "none"] {
        // A probe that failed has a better error to report; what is left then is small and never read.
        store.delete(&key(name)).await.ok();
    }
    result
}

struct Probe<'a> {
    store: &'a dyn Store,
    seam: &'a Seam,
}

impl Probe<'_> {
    async fn run(&self, one: &Key, race: &Key, none: &Key) -> Result<(), ProbeError> {
        let first = self.check_create(one).await?;
        self.check_match(one, &first).await?;
        self.check_match_of_nothing(none).await?;
        self.check_ranges(one).await?;
        let raced =
            self.check_race(Rule::OneCreatorWins, race, &Condition::Absent, "create").await?;
        self.check_race(Rule::OneMatchWins, race, &Condition::Match(raced), "match").await?;
        self.check_delete(one).await
    }

    async fn check_create(&self, key: &Key) -> Result<ETag, ProbeError> {
        let body = Bytes::from_static(b"created");
        let Some(etag) = self.write(key, &body, &Condition::Absent).await? else {
            return Err(self.broken(
                Rule::CreateIsRefused,
                "it refused to create an object that did not exist",
            ));
        };
        self.check_content(Rule::ReadsSeeWrites, key, &body, &etag).await?;
        let second = Bytes::from_static(b"created again");
        if self.write(key, &second, &Condition::Absent).await?.is_some() {
            let observed = "it answered 200 to a second such PUT, so it ignores the condition";
            return Err(self.broken(Rule::CreateIsRefused, observed));
        }
        self.check_content(Rule::CreateIsRefused, key, &body, &etag).await?;
        Ok(etag)
    }

    async fn check_match(&self, key: &Key, first: &ETag) -> Result<(), ProbeError> {
        let body = Bytes::from_static(b"changed");
        let condition = Condition::Match(first.clone());
        let Some(second) = self.write(key, &body, &condition).await? else {
            return Err(
                self.broken(Rule::MatchWrites, "it refused the ETag that it had just given")
            );
        };
        self.check_content(Rule::MatchWrites, key, &body, &second).await?;
        let stale = Bytes::from_static(b"changed by a stale writer");
        if self.write(key, &stale, &condition).await?.is_some() {
            let observed = "it answered 200 to a PUT with an ETag of a former version, so it ignores the condition";
            return Err(self.broken(Rule::StaleMatchIsRefused, observed));
        }
        self.check_content(Rule::StaleMatchIsRefused, key, &body, &second).await
    }

    async fn check_match_of_nothing(&self, key: &Key) -> Result<(), ProbeError> {
        let condition = Condition::Match(ETag::of_content(b"nothing"));
        if self.write(key, &Bytes::from_static(b"from nothing"), &condition).await?.is_some() {
            let observed = "it answered 200 and created an object";
            return Err(self.broken(Rule::MatchNeedsAnObject, observed));
        }
        Ok(())
    }

    /// The object holds `changed`.
    async fn check_ranges(&self, key: &Key) -> Result<(), ProbeError> {
        for (range, expected) in [(1..4, "han"), (0..1, "c"), (5..99, "ed")] {
            let read = self.retried(|| self.store.get_range(key, range.clone())).await;
            let bytes = match read {
                Ok(object) => object.map(|object| object.bytes),
                Err(ProbeError::Unanswered { error, .. })
                    if error.kind == StoreErrorKind::Invalid =>
                {
                    return Err(self.broken(Rule::RangesAreExact, &error.message));
                }
                Err(error) => return Err(error),
            };
            if bytes.as_deref() != Some(expected.as_bytes()) {
                let observed = format!("it answered {bytes:?} to bytes {range:?} of \"changed\"");
                return Err(self.broken(Rule::RangesAreExact, &observed));
            }
        }
        Ok(())
    }

    /// Many writers with the same condition, at the same time.
    async fn check_race(
        &self,
        rule: Rule,
        key: &Key,
        condition: &Condition,
        name: &str,
    ) -> Result<ETag, ProbeError> {
        let bodies: Vec<Bytes> = (0..PROBE_RACERS)
            .map(|racer| Bytes::from(format!("{name} by racer {racer}")))
            .collect();
        let writes = bodies.iter().map(|body| self.store.put(key, body.clone(), condition));
        let answers = join_all(writes).await;
        let mut winners = Vec::new();
        let mut unknown = Vec::new();
        for (answer, body) in answers.into_iter().zip(&bodies) {
            match answer {
                Ok(Put::Done(_)) => winners.push(body),
                Ok(Put::Refused) => {}
                Err(error) if error.kind == StoreErrorKind::Indefinite => unknown.push(body),
                Err(error) => return Err(self.unanswered(error)),
            }
        }
        if winners.len() > 1 {
            let observed = format!("{} of {PROBE_RACERS} succeeded", winners.len());
            return Err(self.broken(rule, &observed));
        }
        let present = self.read(key).await?;
        let is_present =
            |body: &&Bytes| present.as_ref().is_some_and(|object| object.bytes == **body);
        match (winners.first(), &present) {
            (Some(winner), Some(object)) if is_present(winner) => Ok(object.etag.clone()),
            (None, Some(object)) if unknown.iter().any(is_present) => Ok(object.etag.clone()),
            (None, _) if unknown.len() == PROBE_RACERS => Err(self.unanswered(StoreError::new(
                StoreErrorKind::Indefinite,
                key,
                format!("none of {PROBE_RACERS} writes at the same time was answered"),
            ))),
            (Some(_), _) => {
                Err(self
                    .broken(rule, "another's bytes are there than those of the one that succeeded"))
            }
            (None, _) => Err(self.broken(rule, "it refused all of them")),
        }
    }

    async fn check_delete(&self, key: &Key) -> Result<(), ProbeError> {
        self.retried(|| self.store.delete(key)).await?;
        if self.read(key).await?.is_some() {
            return Err(self.broken(Rule::DeletesAreSeen, "it still returned the object"));
        }
        Ok(())
    }

    async fn check_content(
        &self,
        rule: Rule,
        key: &Key,
        body: &Bytes,
        etag: &ETag,
    ) -> Result<(), ProbeError> {
        match self.read(key).await? {
            Some(object) if object.bytes == *body && object.etag == *etag => Ok(()),
            Some(object) if object.bytes == *body => {
                let observed =
                    format!("it names the same bytes {} and then {}", etag.0, object.etag.0);
                Err(self.broken(rule, &observed))
            }
            Some(object) => Err(self
                .broken(rule, &format!("it returned {:?} where {body:?} is right", object.bytes))),
            None => Err(self.broken(rule, "it has no object where one was written")),
        }
    }

    /// Writes with no rival: the new ETag, or `None` if it was refused. A write of unknown outcome is sent
    /// again, and if that is refused, our own bytes there mean that the first did it.
    async fn write(
        &self,
        key: &Key,
        body: &Bytes,
        condition: &Condition,
    ) -> Result<Option<ETag>, ProbeError> {
        let mut sent = 0;
        let put = self
            .retried(|| {
                sent += 1;
                self.store.put(key, body.clone(), condition)
            })
            .await?;
        match put {
            Put::Done(etag) => Ok(Some(etag)),
            Put::Refused if sent > 1 => {
                let object = self.read(key).await?;
                Ok(object.filter(|object| object.bytes == *body).map(|object| object.etag))
            }
            Put::Refused => Ok(None),
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Object>, ProbeError> {
        self.retried(|| self.store.get(key)).await
    }

    /// Asks again while the store says that it may help, with growing pauses.
    async fn retried<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, ProbeError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut tries = 1;
        loop {
            match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_permanent() || tries == PROBE_TRIES => {
                    return Err(self.unanswered(error));
                }
                Err(_) => self.seam.sleep(Duration::from_millis(50 << tries)).await,
            }
            tries += 1;
        }
    }

    fn broken(&self, rule: Rule, observed: &str) -> ProbeError {
        let (store, observed) = (self.store.describe(), observed.to_owned());
        ProbeError::Broken { store, rule, observed, consequence: rule.consequence() }
    }

    fn unanswered(&self, error: StoreError) -> ProbeError {
        ProbeError::Unanswered { store: self.store.describe(), error }
    }
}

#[cfg(test)]
mod tests;
