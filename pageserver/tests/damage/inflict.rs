//! One damage to one object.

use std::collections::BTreeMap;

use bytes::Bytes;
use walstore::envelope::HEADER_BYTES;
use walstore::seam::simulated::split_mix64;
use walstore::store::{Condition, Key, MemoryStore, Store};

use crate::bucket::{Bucket, Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// One bit.
    Flipped,
    /// It ends early, but not at once.
    Truncated,
    Empty,
    Deleted,
    /// Random bytes, of any length.
    Garbage,
    /// Changed places with another object of its kind, or else of any kind.
    Swapped,
    /// Four bytes of it are ones, as a length or a count might be.
    Huge,
    /// The same, and the object's own checksum fits it.
    Resealed,
}

impl Damage {
    pub const ALL: [Self; 8] = [
        Self::Flipped,
        Self::Truncated,
        Self::Empty,
        Self::Deleted,
        Self::Garbage,
        Self::Swapped,
        Self::Huge,
        Self::Resealed,
    ];
}

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn below(&mut self, end: usize) -> usize {
        (split_mix64(&mut self.0) % end as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

pub async fn store_of(objects: &BTreeMap<Key, Bytes>) -> MemoryStore {
    let memory = MemoryStore::new();
    for (key, bytes) in objects {
        memory.put(key, bytes.clone(), &Condition::None).await.unwrap();
    }
    memory
}

/// Some object, and what is to become of it.
pub fn pick(bucket: &Bucket, dice: &mut Dice) -> (Key, Damage) {
    // Kinds first, so that those with few objects get their share.
    let kind = *dice.pick(&bucket.kinds());
    let damage = *dice.pick(&Damage::ALL);
    ((*dice.pick(&of_kind(bucket, kind))).clone(), damage)
}

/// Damages an object; the keys are those whose content is wrong now.
pub async fn inflict(bucket: &Bucket, key: Key, damage: Damage, dice: &mut Dice) -> (MemoryStore, Vec<Key>) {
    let mut objects = bucket.objects.clone();
    let mut keys = vec![key.clone()];
    let whole = objects[&key].clone();
    match damage {
        Damage::Deleted => drop(objects.remove(&key)),
        Damage::Swapped => {
            let same = of_kind(bucket, bucket.kind_of(&key));
            let others: Vec<&Key> = same.into_iter().filter(|other| **other != key).collect();
            let all: Vec<&Key> = bucket.objects.keys().filter(|other| **other != key).collect();
            let other = (*dice.pick(if others.is_empty() { &all } else { &others })).clone();
            let theirs = objects.insert(key, objects[&other].clone());
            objects.insert(other.clone(), theirs.unwrap());
            keys.push(other);
        }
        _ => drop(objects.insert(key, altered(&whole, damage, dice))),
    }
    (store_of(&objects).await, keys)
}

fn of_kind(bucket: &Bucket, kind: Kind) -> Vec<&Key> {
    bucket.objects.keys().filter(|key| bucket.kind_of(key) == kind).collect()
}

fn altered(whole: &Bytes, damage: Damage, dice: &mut Dice) -> Bytes {
    let mut bytes = whole.to_vec();
    match damage {
        Damage::Flipped => bytes[dice.below(whole.len())] ^= 1 << dice.below(8),
        Damage::Truncated => bytes.truncate(1 + dice.below(whole.len() - 1)),
        Damage::Empty => bytes.clear(),
        Damage::Garbage => bytes = (0..1 + dice.below(2 * whole.len())).map(|_| dice.below(256) as u8).collect(),
        Damage::Huge | Damage::Resealed => {
            let from = if damage == Damage::Huge { 0 } else { HEADER_BYTES };
            let at = from + dice.below(whole.len() - from);
            let end = whole.len().min(at + 4);
            bytes[at..end].fill(0xFF);
            if bytes == *whole {
                bytes[at] = 0;
            }
            if damage == Damage::Resealed {
                let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[HEADER_BYTES..]);
                bytes[12..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
            }
        }
        Damage::Deleted | Damage::Swapped => unreachable!("these alter no object"),
    }
    bytes.into()
}
