//! What the history in the bucket says about a moment.

use std::collections::BTreeMap;

use pageserver::history::{self, Located, PastError, Room, Window};
use segments::commit::Commit;
use segments::image::Image;
use segments::map::PageMap;
use segments::page::{Page, PageNo};
use segments::tip::Tip;
use tenant::head::Head;
use tenant::name::Name;

use crate::context::NodeContext;
use crate::database::overlay::Changes;
use crate::database::past_room::PastRoom;
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
}

/// The window from which a database can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub(super) window: Window,
    retention_secs: u32,
    /// Times since then lead to what had the name before, if anything did of which something is left.
    pub(super) formerly_micros: Option<u64>,
}

impl Known {
    fn new(head: &Head, mut window: Window) -> Self {
        for mark in [&mut window.oldest, &mut window.newest] {
            // Before the first commit it was empty from then on; what it began with had another name before.
            mark.time_micros = match mark.lsn {
                0 => head.settings.created_micros,
                _ => mark.time_micros.max(head.settings.created_micros),
            };
        }
        Self { window, retention_secs: head.settings.retention_secs, formerly_micros: None }
    }

    pub async fn read(node: &NodeContext, head: &Head) -> Result<Self, ServerError> {
        Ok(Self::new(head, history::window(&node.fetcher, head).await?))
    }

    fn text(&self) -> String {
        let [oldest, newest] = [self.window.oldest, self.window.newest];
        let [first, last] = [oldest, newest].map(|mark| format!("LSN {} ({})", mark.lsn, time_text(mark.time_micros)));
        let formerly = self.formerly_micros.map_or_else(String::new, |since| {
            format!("; times since {} and bookmarks lead to what had the name before", time_text(since))
        });
        match oldest.lsn == newest.lsn {
            true => format!("only {last} can be shown{formerly}"),
            false => format!("what can be shown is {first} to {last}{formerly}"),
        }
    }
}

impl NotThere {
    pub fn known_mut(&mut self) -> &mut Known {
        let (Self::TooOld(known) | Self::Future(known)) = self;
        known
    }

    /// What a client is told.
    pub fn into_error(self, name: &Name, moment: Moment) -> ServerError {
        let moment = moment.told();
        let text = match self {
            Self::TooOld(known) if known.retention_secs == 0 => format!(
                "`{name}` keeps no history, so {moment} is gone: {}. `shoal db retention {name} 7d` keeps it from then on",
                known.text()
            ),
            Self::TooOld(known) => format!("{moment} is before the retention window of `{name}`: {}", known.text()),
            Self::Future(known) => format!("{moment} is in the future of `{name}`: {}", known.text()),
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
    /// For the pages of that.
    pub room: PastRoom,
}

impl State {
    /// Goes on with the commits that lead to `tip`.
    pub fn go_on(&mut self, changes: Changes, tip: Tip) {
        let Some(lsn) = tip.lsn else { return };
        let before = self.replayed.take().into_iter().flat_map(|(commit, _)| commit.pages);
        let mut pages: BTreeMap<PageNo, Page> = before.filter(|(page_no, _)| page_no.get() <= changes.page_count_min).collect();
        pages.extend(changes.pages);
        let Tip { time_micros, page_count, pages_total, .. } = tip;
        let pages = pages.into_iter().collect();
        self.replayed = Some((Commit { lsn, time_micros, page_count, pages_total, pages }, tip));
    }

    /// Whether there is memory for all of its pages.
    pub fn has_room(&self) -> bool {
        self.room.take(self.replayed.as_ref().map_or(0, |(commit, _)| commit.pages.len()))
    }
}

/// Finds the commit that is meant, among those that `head` says are folded.
pub async fn find(node: &NodeContext, head: &Head, moment: Moment, now_micros: u64) -> Result<Found, ServerError> {
    let wanted = match moment {
        // It is not the empty database from before its creation, nor is a fork what its parent was then.
        Moment::Time(micros) if micros < head.settings.created_micros => {
            return Ok(Found::Not(NotThere::TooOld(Known::read(node, head).await?)));
        }
        Moment::Lsn(lsn) | Moment::Bookmark { lsn, .. } => history::Moment::Lsn(lsn),
        Moment::Time(micros) => history::Moment::Time(micros),
    };
    // Times of commits rise, whatever the clocks do: the last one may be ahead of this node's.
    let now_micros = now_micros.max(head.folded.time_micros);
    Ok(match history::locate(&node.fetcher, head, wanted, now_micros).await {
        Ok(Located::At(lsn)) => Found::At(lsn),
        Ok(Located::AfterFolded) | Err(PastError::NotFolded(_)) => Found::Beyond,
        Err(PastError::TooOld(window)) => Found::Not(NotThere::TooOld(Known::new(head, window))),
        Err(PastError::Future(window)) => Found::Not(NotThere::Future(Known::new(head, window))),
        Err(PastError::Record(error)) => return Err(error.into()),
        Err(PastError::NoRoom(_)) => unreachable!("BUG: nothing was to be replayed"),
    })
}

/// Reads the state after a commit (raw) that [`find`] has found. `None`: there is no room for it.
pub async fn state_at(node: &NodeContext, head: &Head, lsn: u64) -> Result<Option<State>, ServerError> {
    let room = PastRoom::to_show(node);
    let tail = match history::materialise(&node.fetcher, head, lsn, &room).await {
        Ok(tail) => tail,
        Err(PastError::NoRoom(_)) => return Ok(None),
        Err(PastError::Record(error)) => return Err(error.into()),
        Err(PastError::TooOld(window) | PastError::Future(window) | PastError::NotFolded(window)) => {
            return Err(NotThere::TooOld(Known::new(head, window)).into_error(&head.name, Moment::Lsn(lsn)));
        }
    };
    let (image, map, tip) = (tail.image().cloned(), tail.map, tail.tip);
    let base = Tip { lsn: map.lsn(), page_count: map.page_count(), ..tip };
    let replayed = tip.lsn.filter(|lsn| base.lsn != Some(*lsn)).map(|lsn| {
        let Tip { time_micros, page_count, pages_total, .. } = tip;
        let pages = tail.input.pages.into_iter().collect();
        (Commit { lsn, time_micros, page_count, pages_total, pages }, tip)
    });
    Ok(Some(State { tip: base, map, image, replayed, room }))
}
