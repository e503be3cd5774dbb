//! Broken variants of the protocol, for testing the tests.
//!
//! A suite that stays green against a broken protocol is a broken suite. So production code carries, at the few
//! places that the argument for safety rests on, a switch that breaks it. Without the feature `mutants` every
//! switch is the constant `false` and leaves nothing in the binary. With it a test turns one on for its own
//! thread (a simulated world is one thread) and must see a named invariant of DESIGN fail.

use std::fmt;

/// One way in which the protocol could be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A PUT's commits are acknowledged when it is stored, though an earlier slot is not.
    AcknowledgeOutOfOrder,
    /// Commits are acknowledged when their PUT is sent.
    AcknowledgeBeforeDurable,
    /// Replies do not wait for the commits that they show.
    ReplyBeforeGate,
    /// Tombstones are deleted with the slots around them.
    CollectTombstone,
    /// The end of a log is where a listing ends; nothing is put there.
    ListInsteadOfTombstone,
    /// The seal's last write is unconditional.
    SealWithoutCas,
    /// Slots are deleted below what is folded, before a record says so.
    DeleteAboveHint,
    /// The hint counts slots whose PUTs are in flight.
    HintPastInFlight,
    /// A sealer probes from the hint that it read first, though the record has moved on since.
    ProbeFromOldHint,
    /// A suspected incarnation is sealed though it has been renewed since it was suspected.
    SealThoughRenewed,
    /// A database is taken over before its owner's log has an end.
    TakeOverBeforeSeal,
    /// A node that others have succeeded takes a database back, without what it had logged there itself.
    ForgetOwnTerm,
    /// An owner whose release was not answered goes on without winning another write of the head.
    ServeUnconfirmed,
    /// A head write that was refused is sent again without a condition.
    BlindHeadRetry,
    /// Any refusal of a slot's PUT counts as stored by ourselves, or as a fence: the put id is not looked at.
    OwnRefusalIsFence,
    /// A slot that reads as empty after a PUT went unanswered counts as never written, and the batch moves on to
    /// the next slot.
    MissingIsNotWritten,
    /// A commit is published when SQLite syncs, not when it commits.
    PublishOnSync,
    /// A commit is refused with `SQLITE_BUSY`, which leaves the refused pages in the pager's cache.
    RefuseWithBusy,
    /// A database is evicted with commits that only the log has, and opened again without them.
    EvictAndForget,
    /// Packs that a fold makes superfluous are deleted before the CAS that unlinks them.
    DeleteBeforeUnlink,
    /// A sweep deletes what nobody refers to of the present owner's term as well.
    SweepPresentEpoch,
    /// Packs are deleted while readers of this node use an older map.
    ForgetReaders,
    /// Commits are applied without looking at the chain of hashes, nor at whose they are.
    SkipChainCheck,
    /// Bundled slots are deleted before the CAS that links the bundles.
    DeleteBeforeLink,
    /// Linking bundles moves the end of the log.
    LinkMovesEnd,
    /// The commits of the last slot do not get into a bundle.
    BundleWithoutLast,
    /// A bundler whose CAS was not answered deletes its bundles, as if it had lost.
    DiscardUnknownLink,
    /// A reader of a sealed log begins at its first slot, not at `low`.
    ReadBelowLow,
    /// A drained log's bundles are deleted while its record refers to them.
    DeleteLinkedBundles,
    /// The marker of a drained log is deleted first.
    MarkerFirst,
    /// A log is forgotten though a head's tail needs commits of it.
    ForgetNeeded,
    /// Draining a database leaves its epoch as it was.
    DrainKeepsEpoch,
    /// Deltas speak for pages that a shrink has cut off since, and a regrowth relies on what they say.
    IgnoreValidUpto,
    /// A fold takes commits that are not durable yet.
    FoldNotDurable,
    /// A page that is nowhere is zeros.
    ZerosForMissing,
    /// What the disk cache finds is served, whatever it is.
    SkipSlotCheck,
    /// The pages of a frame are served whatever its checksum says.
    SkipFrameCheck,
    /// History is trimmed up to its newest base, wherever the horizon is.
    TrimBeyondHorizon,
    /// A fork is pinned, but nothing is kept of where it begins once the database goes on.
    PinWithoutBase,
    /// Collecting forgets that forks begin at pinned bases.
    CollectPinned,
    /// Collecting keeps the bases at which forks begin, and not what these lead to. Neon's issue 865: its collector
    /// kept the layers in which a branch begins, and not those before them, from which the branch reads as well.
    CollectBelowPinned,
    /// Commits before the horizon are forked. Neon's pull request 863, the first of its two findings (the second is
    /// issue 865): nothing kept a branch from beginning where everything had been collected.
    ForkBeforeHorizon,
    /// A fork whose write of the parent's head was refused is sent again as it was, whatever the horizon is by now.
    /// Pull request 863 warns of it: a horizon that is looked at when a branch is asked for may move until it is made.
    OldHorizon,
    /// The pin of a fork whose head is not there is lifted, though that head may be on its way.
    UnpinMissing,
    /// A pin is lifted though its fork leads to objects that are not its own.
    UnpinReaching,
    /// A fork begins with its parent's owner and with the logs of its parent's tail.
    ForeignTail,
    /// A first fold is linked, and the name does not say that there was a head.
    ForgetMade,
}

impl Mutant {
    pub const ALL: [Self; 47] = [
        Self::AcknowledgeOutOfOrder,
        Self::AcknowledgeBeforeDurable,
        Self::ReplyBeforeGate,
        Self::CollectTombstone,
        Self::ListInsteadOfTombstone,
        Self::SealWithoutCas,
        Self::DeleteAboveHint,
        Self::HintPastInFlight,
        Self::ProbeFromOldHint,
        Self::SealThoughRenewed,
        Self::TakeOverBeforeSeal,
        Self::ForgetOwnTerm,
        Self::ServeUnconfirmed,
        Self::BlindHeadRetry,
        Self::OwnRefusalIsFence,
        Self::MissingIsNotWritten,
        Self::PublishOnSync,
        Self::RefuseWithBusy,
        Self::EvictAndForget,
        Self::DeleteBeforeUnlink,
        Self::SweepPresentEpoch,
        Self::ForgetReaders,
        Self::SkipChainCheck,
        Self::DeleteBeforeLink,
        Self::LinkMovesEnd,
        Self::BundleWithoutLast,
        Self::DiscardUnknownLink,
        Self::ReadBelowLow,
        Self::DeleteLinkedBundles,
        Self::MarkerFirst,
        Self::ForgetNeeded,
        Self::DrainKeepsEpoch,
        Self::IgnoreValidUpto,
        Self::FoldNotDurable,
        Self::ZerosForMissing,
        Self::SkipSlotCheck,
        Self::SkipFrameCheck,
        Self::TrimBeyondHorizon,
        Self::PinWithoutBase,
        Self::CollectPinned,
        Self::CollectBelowPinned,
        Self::ForkBeforeHorizon,
        Self::OldHorizon,
        Self::UnpinMissing,
        Self::UnpinReaching,
        Self::ForeignTail,
        Self::ForgetMade,
    ];
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Whether this thread runs the broken variant.
#[cfg(feature = "mutants")]
pub fn is_on(mutant: Mutant) -> bool {
    switch::ON.get() == Some(mutant)
}

/// Whether this thread runs the broken variant: never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is_on(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::turn_on;

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        pub static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks the protocol on this thread, or mends it.
    pub fn turn_on(mutant: Option<Mutant>) {
        ON.set(mutant);
    }
}
