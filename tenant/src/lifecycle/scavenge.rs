//! What to do about a pin, and about what is left of forks and restores that were not finished.
//!
//! A pin may be lifted only when nobody can come to need it. That a child has no head proves nothing: its head may be
//! on its way. So its key is *occupied* first, and only if the aborted head stands there, the pin goes.
//!
//! | the child | the pin |
//! |---|---|
//! | has no head | occupy the key with an aborted head, and look again |
//! | is aborted, or leads to its own objects only and has no owner | goes |
//! | has an owner | stays: he may have readers of what his head has left behind |
//! | leads to objects of others | stays |
//!
//! Those others need not be the parent: what a fork of a fork has of its grandparent is kept by its parent's pin there,
//! which lasts as long as the parent itself leads there, if only for the fork.
//!
//! Whoever owns the parent may be making a fork right now, which has a pin and no head yet. So nobody but him does
//! anything about the pins of a database that has an owner who may live, and he leaves those alone that he is making.

use walstore::id::DatabaseId;
use walstore::mutant::{self, Mutant};

use super::OwnerState;
use crate::head::{Head, HeadState};

/// What the head of a pinned child says.
#[derive(Clone, Copy, Debug)]
pub enum ChildLook<'a> {
    Missing,
    /// And whether its map, its history or its pins lead to an object that is not its own.
    Head { head: &'a Head, reaches: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinPlan {
    Keep,
    /// Put an aborted head where the child's would be, if none is there. Then look again.
    Occupy,
    /// Write a successor of the parent without it.
    Unpin,
}

/// Decides what becomes of a pin of `parent`, whose owner's state as seen from here is `owner`. `is_in_making`: this node
/// is making that child.
pub fn plan_pin(parent: &Head, owner: &OwnerState, child: ChildLook<'_>, is_in_making: bool) -> PinPlan {
    let may_touch = match owner {
        OwnerState::None => parent.owner.is_none(),
        OwnerState::Me => true,
        OwnerState::MeLeaving | OwnerState::Sealed | OwnerState::LeaseOver | OwnerState::Alive { .. } => false,
    };
    if !may_touch || is_in_making {
        return PinPlan::Keep;
    }
    match child {
        ChildLook::Missing if mutant::is_on(Mutant::UnpinMissing) => PinPlan::Unpin,
        ChildLook::Missing => PinPlan::Occupy,
        ChildLook::Head { head, .. } if head.state == HeadState::Aborted => PinPlan::Unpin,
        ChildLook::Head { head, .. } if head.owner.is_some() => PinPlan::Keep,
        ChildLook::Head { reaches: true, .. } if !mutant::is_on(Mutant::UnpinReaching) => PinPlan::Keep,
        ChildLook::Head { .. } => PinPlan::Unpin,
    }
}

/// Where the name of a living fork leads by now, past databases that were restored in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameLook {
    /// To it.
    Itself,
    /// To a living database, whose owner is in this state.
    Other { database: DatabaseId, owner: OwnerState },
    /// To one that has ended for good, or to none.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftoverPlan {
    Keep,
    /// Nobody can ever reach it: delete it.
    Delete,
}

/// Decides what becomes of a living fork to which its name may not lead: a restore in place makes the new database
/// before the old one ends, and a crash in between leaves it.
///
/// The restore was the work of the owner of the database that the name leads to. Once nobody owns that, the write that
/// would have ended it can no longer win.
pub fn plan_leftover(fork: &Head, name: &NameLook, is_in_making: bool) -> LeftoverPlan {
    let is_nobodys = fork.state == HeadState::Live && fork.owner.is_none() && fork.parent.is_some();
    if !is_nobodys || is_in_making {
        return LeftoverPlan::Keep;
    }
    match name {
        NameLook::Itself => LeftoverPlan::Keep,
        NameLook::Other { owner: OwnerState::None | OwnerState::Me, .. } | NameLook::Nobody => LeftoverPlan::Delete,
        NameLook::Other { .. } => LeftoverPlan::Keep,
    }
}
