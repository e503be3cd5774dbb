//! Time travel: a family of databases that are forked, restored, deleted and brought back while nodes die, and whose
//! past is read.
//!
//! One client writes to all of them, so it knows which transaction made which commit, but for those whose outcome it was
//! not told. Checked whenever a state is shown, of now or of then: it is exactly the one after its LSN, of that line of
//! history (I9). Whatever was answered is there for good: a fork outlives its parent (I8), a restore in place its node
//! (I1). What was refused has not happened (I11), and what has an unknown outcome is all there or not at all (I12). A
//! moment is refused only outside of the window that the refusal states, and nothing leaves that window before its time,
//! wherever clocks jump.
//!
//! A database may have an end. Before it, by the clock of the node that is asked, it is served; after it, by that clock, it
//! is not; and nobody deletes it before that time has really come. Files that are imported are all there, or not there.
//! A reset gives a fork what its parent is by then, and what undoes it leads back to all that the fork was.
//!
//! A name on which a change of unknown outcome may still be on its way is left alone until the end.

mod answers;
mod changes;
mod ending;
mod ends;
mod expiring;
mod family;
pub mod files;
mod importing;
mod reading;
mod resetting;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::ending::Examiner;
pub use self::ends::Clocks;
use self::ends::Ends;
use self::family::Family;
use crate::client::Client;
use crate::cluster::{Answer, sleep};

/// What happened, to see that it was worth something.
pub type Tally = BTreeMap<&'static str, u64>;

/// What every large run must have had.
pub const KINDS: [&str; 25] = [
    "write",
    "past read",
    "past read of a former database by time",
    "past read at the end",
    "listing",
    "fork now",
    "fork then",
    "restore to a new name",
    "restore",
    "undo",
    "delete",
    "undelete",
    "moment refused",
    "reset",
    "undo of a reset",
    "fork with an end",
    "end set",
    "end taken back",
    "served before its end",
    "ended",
    "ended at last",
    "import",
    "import cut off",
    "import begun anew",
    "import found done",
];

/// Things that the client does.
const ACTIONS: u64 = 54;
/// Names that it takes at most.
const NAMES_MAX: usize = 12;
/// With a retention of so much nothing leaves the window as long as clients run, and a commit may bear a time that is
/// five minutes off.
const LONG: Duration = Duration::from_secs(3_600);

/// What a name may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    Nowhere,
    To(usize),
    /// To a fork of that line, made at a moment that its client does not know, which ends then, or never (0).
    ToForkOf(usize, u64),
    /// To a line whose time is up.
    Ended(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Sure(Leads),
    /// To one of these.
    Unsure(Vec<Leads>),
}

/// What the client was told.
#[derive(Default)]
pub struct Past {
    family: Family,
    names: BTreeMap<String, Standing>,
    /// The last line of each name that was deleted.
    deleted: BTreeMap<String, usize>,
    pub retention: Duration,
    /// The clients are done, and more time than any retention has passed.
    pub is_long_ago: bool,
    /// Who is fenced may show what he has lost a while longer.
    pub may_be_stale: bool,
    pub tally: Tally,
}

impl Past {
    pub fn did(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Whether nothing has left the window since the world began.
    fn keeps_all(&self) -> bool {
        self.retention >= LONG && !self.is_long_ago
    }

    fn put(&mut self, name: &str, leads: Leads) {
        self.names.insert(name.into(), Standing::Sure(leads));
    }

    fn doubt(&mut self, name: &str, leads: &[Leads]) {
        self.did("unknown outcome");
        self.names.insert(name.into(), Standing::Unsure(leads.to_vec()));
    }

    /// When what a name may lead to ends.
    fn ends_of(&self, name: &str) -> Vec<Ends> {
        let of = |leads: &Leads| match *leads {
            Leads::Nowhere => None,
            Leads::To(line) | Leads::Ended(line) => Some(self.family.lines[line].ends.clone()),
            Leads::ToForkOf(_, micros) => Some(Ends::at(micros)),
        };
        match &self.names[name] {
            Standing::Sure(leads) => of(leads).into_iter().collect(),
            Standing::Unsure(leads) => leads.iter().filter_map(of).collect(),
        }
    }

    /// Names that lead to a database for sure.
    fn sure(&self) -> Vec<(String, usize)> {
        let line = |(name, standing): (&String, &Standing)| match standing {
            Standing::Sure(Leads::To(line)) => Some((name.clone(), *line)),
            Standing::Sure(_) | Standing::Unsure(_) => None,
        };
        self.names.iter().filter_map(line).collect()
    }

    /// Whether a line was put where it is by a reset.
    fn is_a_reset(&self, line: usize) -> bool {
        let lines = &self.family.lines;
        lines[line].undo.is_some() && lines[line].from.is_some_and(|(from, _)| lines[from].name != lines[line].name)
    }

    /// Lines that the name of `line` led to before, of which the id is known.
    fn former(&self, line: usize) -> Vec<usize> {
        let lines = &self.family.lines;
        let is_former = |at: &usize| *at != line && lines[*at].name == lines[line].name && lines[*at].id.is_some();
        (0..lines.len()).filter(is_former).collect()
    }
}

impl Client {
    pub async fn travel(mut self) {
        for _ in 0..ACTIONS {
            let pause = self.rng.below(900);
            sleep(Duration::from_millis(pause)).await;
            let sure = self.story.past.borrow().sure();
            if sure.is_empty() {
                self.found_a_family().await;
                continue;
            }
            let (name, line) = self.rng.pick(&sure).clone();
            match self.rng.below(54) {
                0..14 => self.write(&name, line).await,
                14..18 => self.read_now(&name, line).await,
                18..24 => self.read_then(&name, line).await,
                24..28 => self.list_history(&name, line).await,
                28..34 => self.fork(&name, line).await,
                34..37 => self.restore(&name, line).await,
                37..39 => self.undo(&name, line).await,
                39..41 => self.delete(&name, line).await,
                41..43 => self.undelete().await,
                43..46 => self.reset(&name, line).await,
                46..49 => self.set_end(&name, line).await,
                49..53 => self.import().await,
                _ => self.give_up(&name).await,
            }
        }
    }

    /// Creates the first database of a family.
    async fn found_a_family(&mut self) {
        let Some(name) = self.new_name() else { return };
        let answer = self.administer("POST", &format!("/v1/namespaces/{name}/create")).await;
        self.note(format!("create {name}: {answer:?}"));
        let sql = format!("BEGIN IMMEDIATE; {} {} {} COMMIT", files::SCHEMA, files::empty_cells(), files::TRIGGER);
        if matches!(answer, Answer::Done(_)) && self.insist(&name, &sql).await {
            let mut past = self.story.past.borrow_mut();
            let line = past.family.found(&name);
            past.put(&name, Leads::To(line));
            past.did("family");
        }
    }

    /// A name that nothing has had.
    fn new_name(&mut self) -> Option<String> {
        let is_free = self.story.past.borrow().names.len() < NAMES_MAX;
        is_free.then(|| format!("past-{}", self.next_id()))
    }

    /// Gives a database up, so that sweeps look after its pins.
    async fn give_up(&mut self, name: &str) {
        let answer = self.administer("POST", &format!("/v1/namespaces/{name}/release")).await;
        self.note(format!("release {name}: {answer:?}"));
    }

    fn breaks(&self, broken: String) {
        self.note(format!("BROKEN: {broken}"));
        self.story.breaks(broken);
    }

    fn learn(&self, verdict: Result<(), String>) {
        if let Err(broken) = verdict {
            self.breaks(broken);
        }
    }
}
