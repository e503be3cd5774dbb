//! Which fault hit what the protocol was doing, counted over all seeds.

use std::collections::{BTreeMap, BTreeSet};

use tenant::head::Head;
use walstore::fragment::{self, SlotKind, TOMBSTONE_BYTES};
use walstore::id::{DatabaseId, IncarnationId, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::register::Record;
use walstore::store::{Fault, Op, TraceLine, key_class};

/// What a request was for. Written as rows of the table.
pub type Doing = &'static str;

#[derive(Clone, Default)]
pub struct Hits {
    cells: BTreeMap<(Doing, Fault), u64>,
    requests: BTreeMap<Doing, u64>,
    /// Epochs whose acquire has been seen, with its version.
    acquires: BTreeMap<(DatabaseId, u64), u64>,
    /// Records of sealed logs that refer to bundles, or did.
    linked: BTreeSet<String>,
    owners: BTreeMap<(DatabaseId, u64), IncarnationId>,
}

impl Hits {
    /// Counts one line of the trace of `incarnation`'s connection.
    pub fn count(&mut self, incarnation: IncarnationId, line: &TraceLine) {
        let doing = self.doing(incarnation, line);
        *self.requests.entry(doing).or_default() += 1;
        if let Some(fault) = line.fault {
            *self.cells.entry((doing, fault)).or_default() += 1;
        }
    }

    /// Something that happened to a node and not to a request.
    pub fn count_event(&mut self, event: Doing) {
        *self.requests.entry(event).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.cells {
            *self.cells.entry(*cell).or_default() += count;
        }
        for (doing, count) in &other.requests {
            *self.requests.entry(doing).or_default() += count;
        }
    }

    pub fn of(&self, doing: Doing, fault: Fault) -> u64 {
        self.cells.get(&(doing, fault)).copied().unwrap_or_default()
    }

    pub fn total(&self, doing: Doing) -> u64 {
        self.requests.get(doing).copied().unwrap_or_default()
    }

    fn doing(&mut self, incarnation: IncarnationId, line: &TraceLine) -> Doing {
        let is_own = line.key.contains(&incarnation.to_string());
        match (key_class(&line.key), line.op) {
            (_, Op::List) => "LIST",
            ("live", Op::Delete) => "live delete",
            ("live", _) => "live marker",
            ("b", Op::Put) => "bundle PUT",
            ("b", Op::Delete) => "bundle delete",
            ("b", _) => "bundle GET",
            ("inc", Op::Put) => self.record_write(line),
            ("inc", _) if is_own => "own record GET",
            ("inc", _) => "owner GET",
            ("w", Op::Put) => slot_write(line),
            ("w", Op::GetRange) => "seal probe",
            ("w", Op::Delete) => "slot delete",
            ("w", _) if is_own => "slot read-back",
            ("w", _) => "recovery GET",
            ("head", Op::Put) => self.head_write(incarnation, line),
            ("head", _) => "head GET",
            ("n", Op::Put) => "name CAS",
            ("n", _) => "name GET",
            ("pack", Op::Put) => "pack PUT",
            ("pack", Op::Delete) => "pack delete",
            ("pack", _) => "pack GET",
            ("due", _) => "due marker",
            _ => "other",
        }
    }

    fn record_write(&mut self, line: &TraceLine) -> Doing {
        let record = line.body.as_ref().and_then(|body| IncarnationRecord::decode(body).ok());
        let Some(record) = record else { return "other" };
        match record.state {
            State::Open if record.version == 1 => "incarnation create",
            State::Open => "lease renewal",
            State::Recovering => "seal begin",
            State::Sealed { .. } if !record.bundles.is_empty() => {
                self.linked.insert(line.key.clone());
                "bundle link"
            }
            State::Sealed { .. } if self.linked.contains(&line.key) => "bundle unlink",
            State::Sealed { .. } => "seal end",
        }
    }

    fn head_write(&mut self, incarnation: IncarnationId, line: &TraceLine) -> Doing {
        let Some(head) = line.body.as_ref().and_then(|body| Head::decode(body).ok()) else { return "other" };
        if let Some(owner) = head.owner {
            self.owners.insert((head.database, head.epoch), owner);
        }
        if head.state.is_final() {
            return "head delete";
        }
        match head.owner {
            None if self.owners.get(&(head.database, head.epoch - 1)) == Some(&incarnation) => "head release",
            None => "head drain",
            Some(_) if head.version == 1 => "head create",
            Some(_) => {
                let acquire = self.acquires.entry((head.database, head.epoch)).or_insert(head.version);
                if head.version <= *acquire { "head acquire" } else { "head fold" }
            }
        }
    }
}

fn slot_write(line: &TraceLine) -> Doing {
    let mut parts = line.key.split('/').skip(2);
    let id = parts.next().and_then(IncarnationId::parse);
    let slot = parts.next().and_then(|slot| u64::from_str_radix(slot, 16).ok()).map(Slot);
    let (Some(id), Some(slot), Some(body)) = (id, slot, &line.body) else { return "other" };
    match fragment::identify(&body.slice(..body.len().min(TOMBSTONE_BYTES)), id, slot) {
        Ok(SlotKind::Tombstone) => "tombstone",
        Ok(SlotKind::Data) => "log PUT",
        Err(_) => "other",
    }
}

/// Short enough for a column.
fn heading(fault: Fault) -> &'static str {
    match fault {
        Fault::Lost => "lost",
        Fault::AnswerLost => "ans.lost",
        Fault::Late => "late",
        Fault::Duplicated => "twice",
        Fault::Unavailable => "503",
        Fault::Slow => "slow",
        Fault::Repeated => "repeated",
        Fault::Throttled => "429",
        Fault::FailedApplied => "500 done",
        Fault::Reset => "reset",
        Fault::Conflict => "409",
        Fault::ConflictApplied => "409 done",
        Fault::OwnRefusal => "own 412",
        Fault::Truncated => "cut off",
        Fault::StaleList => "stale",
        Fault::DisorderedList => "disorder",
        Fault::BlackHole => "hole",
        Fault::Outage => "outage",
        Fault::Denied => "403",
    }
}

impl std::fmt::Display for Hits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let faults: BTreeSet<Fault> = self.cells.keys().map(|(_, fault)| *fault).collect();
        write!(f, "{:<19}{:>10}", "", "in all")?;
        for fault in &faults {
            write!(f, "{:>9}", heading(*fault))?;
        }
        for (doing, count) in &self.requests {
            write!(f, "\n{doing:<19}{count:>10}")?;
            for fault in &faults {
                write!(f, "{:>9}", self.of(doing, *fault))?;
            }
        }
        Ok(())
    }
}
