//! What must hold in every state, and the ways to break the protocol on purpose.

use std::fmt;

/// A named invariant. The names are DESIGN's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// An acknowledged commit is readable by every later owner.
    I1,
    /// A slot is acknowledged only when it and all slots before it have been in the bucket as this log's data.
    I3InOrder,
    /// What was acknowledged lies inside what the seal keeps, or was folded before.
    I3Kept,
    /// All recoverers read the same bytes.
    I3Same,
    /// After the seal nothing outside the sealed content is acknowledged.
    I4Sealed,
    /// A new owner holds every commit that has been acknowledged.
    I4Owner,
    /// A slot in `low..end` that held data still holds it: no reader misses it.
    I8,
    /// The tombstone that ends a log is never deleted, and a record only goes open, recovering, sealed.
    I7,
    /// A PUT turns out to be exactly one of stored or fenced, and a batch never moves to a second slot.
    I12,
    /// low <= hint <= the durable prefix, hint <= end, and everything below low is folded.
    Hint,
    /// Once faults stop, one sealer alone reaches the seal.
    I16,
}

impl Invariant {
    /// Whether its failure is the loss itself. The others are fences: they fail earlier, on the way to a loss.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::I1 | Self::I3Kept | Self::I3Same | Self::I4Sealed | Self::I4Owner)
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I1 => "I1 (acknowledged, and gone for the new owner)",
            Self::I3InOrder => "I3 (acknowledged before a slot below it was data)",
            Self::I3Kept => "I3 (acknowledged, neither sealed nor folded)",
            Self::I3Same => "I3 (recoverers read different bytes)",
            Self::I4Sealed => "I4 (acknowledged outside the sealed content)",
            Self::I4Owner => "I4 (acknowledged, and the new owner does not hold it)",
            Self::I7 => "I7 (a tombstone is deleted, or a seal undone)",
            Self::I8 => "I8 (a slot that a reader needs is gone)",
            Self::I12 => "I12 (a PUT with two outcomes, or a batch in two slots)",
            Self::Hint => "hint and low (low <= hint <= durable prefix)",
            Self::I16 => "I16 (no seal can finish)",
        })
    }
}

/// One rule of the protocol that this run breaks. Names as in `walstore::mutant`, where it has the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    AcknowledgeOutOfOrder,
    AcknowledgeBeforeDurable,
    ListInsteadOfTombstone,
    CollectTombstone,
    SealWithoutCas,
    DeleteAboveHint,
    HintPastInFlight,
    TakeOverBeforeSeal,
    BlindHeadRetry,
    OwnRefusalIsFence,
    MissingIsNotWritten,
    /// A sealer probes from the hint that it read first, not from the one in the body that became *recovering*.
    ProbeFromOldHint,
    /// A tombstone is put whatever is in the slot.
    TombstoneOverwrites,
    /// A sealer that finds *recovering* waits for whoever wrote that.
    WaitForOtherSealer,
}

impl Mutant {
    pub const ALL: [Self; 14] = [
        Self::AcknowledgeOutOfOrder,
        Self::AcknowledgeBeforeDurable,
        Self::ListInsteadOfTombstone,
        Self::CollectTombstone,
        Self::SealWithoutCas,
        Self::DeleteAboveHint,
        Self::HintPastInFlight,
        Self::TakeOverBeforeSeal,
        Self::BlindHeadRetry,
        Self::OwnRefusalIsFence,
        Self::MissingIsNotWritten,
        Self::ProbeFromOldHint,
        Self::TombstoneOverwrites,
        Self::WaitForOtherSealer,
    ];
}
