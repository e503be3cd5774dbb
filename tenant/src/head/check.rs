//! What holds in every head by itself.

use walstore::envelope::Corrupt;
use walstore::id::Lsn;
use walstore::limits::COUNTER_MAX;

use super::{Folded, Head, HeadState, MapField, Pin};
use crate::field::at_most;
use crate::limits;

impl Head {
    /// Checked before every write and after every read.
    pub fn check(&self) -> Result<(), Corrupt> {
        self.check_limits()?;
        self.check_counters()?;
        self.check_owner()?;
        self.check_tail()?;
        self.check_history()?;
        self.check_state()
    }

    fn check_limits(&self) -> Result<(), Corrupt> {
        self.settings.check()?;
        match &self.map {
            MapField::Inline(map) => at_most(map.len(), limits::MAP_INLINE_BYTES_MAX, "bytes of page map")?,
            MapField::Shared(chunk) => {
                at_most(chunk.0.len(), limits::CHUNK_REFERENCE_BYTES_MAX, "bytes of chunk reference")?;
            }
        }
        at_most(self.history.len(), limits::HISTORY_BYTES_MAX, "bytes of history")?;
        at_most(self.tail.len(), limits::TAIL_ENTRIES_MAX, "entries in the tail")?;
        at_most(self.pins.len(), limits::PINS_MAX, "pins")?;
        at_most(self.pin_chunks.len(), limits::PIN_CHUNKS_MAX, "chunks of pins")?;
        at_most(self.dead.len(), limits::DEAD_MAX, "dead packs")?;
        let longest = self.dead.iter().map(|pack| pack.0.len()).max().unwrap_or(0);
        at_most(longest, limits::PACK_REFERENCE_BYTES_MAX, "bytes of pack reference")?;
        let image_bytes = self.inline_image.as_ref().map_or(0, |image| image.len());
        at_most(image_bytes, limits::INLINE_IMAGE_BYTES_MAX, "bytes of inline image")
    }

    fn check_counters(&self) -> Result<(), Corrupt> {
        if self.version == 0 || self.epoch == 0 {
            return broken(format!("version {} and epoch {}: both count from 1", self.version, self.epoch));
        }
        let folded = &self.folded;
        if folded.lsn.is_none() && (folded.page_count > 0 || folded.pages_total > 0) {
            return broken("pages before the first commit");
        }
        Ok(())
    }

    /// Of what the bucket holds only: a successor may be one further than what was accepted.
    pub(super) fn check_far(&self) -> Result<(), Corrupt> {
        let Folded { lsn, time_micros, pages_total, .. } = self.folded;
        let last_after = self.tail.last().map_or(0, |entry| Lsn::raw(entry.after));
        let created = self.settings.created_micros;
        let furthest = [self.version, self.epoch, Lsn::raw(lsn), last_after, time_micros, created, pages_total];
        if furthest.iter().any(|counter| *counter > COUNTER_MAX) {
            return broken(format!("{furthest:?} (version, epoch, LSNs, times, pages) is further than any history gets"));
        }
        Ok(())
    }

    /// The owner has the last entry of the tail, of the present epoch; without an owner there is no tail.
    fn check_owner(&self) -> Result<(), Corrupt> {
        let last = self.tail.last().map(|entry| (entry.incarnation, entry.epoch));
        if last != self.owner.map(|owner| (owner, self.epoch)) {
            return broken(format!("owner {:?} at epoch {}, but the tail ends with {last:?}", self.owner, self.epoch));
        }
        Ok(())
    }

    /// The tail begins at the folded point and goes on by epoch without going back.
    fn check_tail(&self) -> Result<(), Corrupt> {
        if let Some(first) = self.tail.first()
            && first.after != self.folded.lsn
        {
            return broken(format!("folded to {:?}, but the tail begins after {:?}", self.folded.lsn, first.after));
        }
        for pair in self.tail.windows(2) {
            if pair[0].epoch >= pair[1].epoch || pair[0].after > pair[1].after {
                return broken(format!("{:?} comes before {:?} in the tail", pair[0], pair[1]));
            }
        }
        Ok(())
    }

    fn check_history(&self) -> Result<(), Corrupt> {
        let folded = self.folded.lsn;
        if self.horizon > folded {
            return broken(format!("the horizon {:?} lies above the folded {folded:?}", self.horizon));
        }
        if self.pins.iter().any(|pin| pin.lsn > folded) {
            return broken("a pin lies above the folded point");
        }
        let is_repeated = |(at, pin): (usize, &Pin)| self.pins[..at].iter().any(|p| p.child == pin.child);
        if self.pins.iter().enumerate().any(is_repeated) {
            return broken("a child is pinned twice");
        }
        match self.parent {
            // An aborted fork never got anything.
            Some(parent) if parent.lsn > folded && self.state != HeadState::Aborted => {
                broken("folded to below its own fork point")
            }
            _ => Ok(()),
        }
    }

    fn check_state(&self) -> Result<(), Corrupt> {
        if self.state.is_final() && self.owner.is_some() {
            return broken(format!("{:?}, but owned by {:?}", self.state, self.owner));
        }
        match &self.state {
            HeadState::Moved { new } if *new == self.database => broken("moved to itself"),
            HeadState::Renamed { name } if *name == self.name => broken("renamed to its own name"),
            _ => Ok(()),
        }
    }
}

fn broken(reason: impl Into<String>) -> Result<(), Corrupt> {
    Err(Corrupt::new(reason))
}
