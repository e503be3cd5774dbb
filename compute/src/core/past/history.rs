//! What the history in the bucket says about a moment.

use segments::commit::Commit;
use segments::image::Image;
use segments::map::PageMap;
use segments::tip::Tip;
use tenant::head::Head;
use tenant::name::Name;
use walstore::id::Lsn;

use crate::context::NodeContext;
use crate::error::{Fault, ServerError};
use crate::moment::{Moment, time_text};

/// Where a moment is.
pub enum Found {
    /// This commit (raw), and it can be shown.
    At(u64),
    /// After everything that is folded.
    Beyond,
    Not(NotThere),
}

/// Why a moment cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotThere {
    /// Before the window.
    TooOld(Known),
    /// No commit has this number yet, or it is not that late yet.
    Future(Known),
    /// The bookmark is one of another database.
    Other(Known),
}

/// The window from which a database can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The first commit (raw) that can be shown.
    pub first: u64,
    pub first_micros: Option<u64>,
    pub last: u64,
    pub last_micros: u64,
    pub retention_secs: u32,
}

impl Known {
    /// As far as a head says.
    pub fn of_head(head: &Head) -> Self {
        let (first, last) = (Lsn::raw(head.horizon), Lsn::raw(head.folded.lsn));
        let first_micros = match first {
            0 => Some(head.settings.created_micros),
            first if first == last => Some(head.folded.time_micros),
            _ => None,
        };
        let retention_secs = head.settings.retention_secs;
        Self { first, first_micros, last, last_micros: head.folded.time_micros, retention_secs }
    }

    fn text(&self) -> String {
        let place = |lsn: u64, micros: Option<u64>| match micros {
            Some(micros) => format!("LSN {lsn} ({})", time_text(micros)),
            None => format!("LSN {lsn}"),
        };
        let (first, last) = (place(self.first, self.first_micros), place(self.last, Some(self.last_micros)));
        match self.first == self.last {
            true => format!("only {last} can be shown"),
            false => format!("what can be shown is {first} to {last}"),
        }
    }
}

impl NotThere {
    /// What a client is told.
    pub fn into_error(self, name: &Name, moment: Moment) -> ServerError {
        let text = match self {
            Self::TooOld(known) if known.retention_secs == 0 => format!(
                "`{name}` keeps no history, so {moment} is gone: {}. `shoal db retention {name} 7d` keeps it from then on",
                known.text()
            ),
            Self::TooOld(known) => format!("{moment} is before the retention window of `{name}`: {}", known.text()),
            Self::Future(known) => format!("{moment} is in the future of `{name}`: {}", known.text()),
            Self::Other(known) => format!(
                "the bookmark {moment} is of another database than the one that `{name}` leads to now: {}",
                known.text()
            ),
        };
        ServerError::new(Fault::Invalid, text)
    }
}

/// A state as it is opened: what was folded, and what came after that, as one commit.
pub struct State {
    pub tip: Tip,
    pub map: PageMap,
    pub image: Option<Image>,
    pub replayed: Option<(Commit, Tip)>,
}

/// Finds the commit that is meant, among those that `head` says are folded.
pub async fn find(_node: &NodeContext, head: &Head, moment: Moment, now_micros: u64) -> Result<Found, ServerError> {
    let known = Known::of_head(head);
    let lsn = match moment {
        Moment::Bookmark { database, .. } if database != head.database => return Ok(Found::Not(NotThere::Other(known))),
        Moment::Lsn(lsn) | Moment::Bookmark { lsn, .. } => lsn,
        Moment::Time(micros) if micros > now_micros.max(known.last_micros) => {
            return Ok(Found::Not(NotThere::Future(known)));
        }
        Moment::Time(micros) if micros >= known.last_micros => return Ok(Found::Beyond),
        Moment::Time(_) => return Ok(Found::Not(NotThere::TooOld(known))),
    };
    Ok(match lsn {
        lsn if lsn > known.last => Found::Beyond,
        lsn if lsn < known.first => Found::Not(NotThere::TooOld(known)),
        lsn => Found::At(lsn),
    })
}

/// Reads the state after a commit that [`find`] has found.
pub async fn state_at(_node: &NodeContext, head: &Head, lsn: Option<Lsn>) -> Result<State, ServerError> {
    if lsn != head.folded.lsn {
        return Err(ServerError::new(Fault::Invalid, "not yet"));
    }
    let corrupt = |corrupt: walstore::envelope::Corrupt| corrupt.at(tenant::keys::head(head.database));
    let (tip, map) = pageserver::base::base_of(head).map_err(corrupt)?;
    let image = pageserver::base::image_of(head).map_err(corrupt)?;
    Ok(State { tip, map, image, replayed: None })
}
