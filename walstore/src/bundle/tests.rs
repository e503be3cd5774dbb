use super::*;
use crate::fragment::{self, Entry, SlotObject};
use crate::id::PutId;
use crate::run::Content;
use proptest::prelude::*;

const INC: IncarnationId = IncarnationId::from_bytes([1; 16]);
const NONCE: [u8; 16] = [2; 16];

fn database(byte: u8) -> DatabaseId {
    DatabaseId::from_bytes([byte; 16])
}

fn entry(byte: u8, epoch: u64, lsn: u64, bytes: &[u8]) -> Entry {
    let bytes = Bytes::copy_from_slice(bytes).into();
    Entry { database: database(byte), epoch, lsn: Lsn::new(lsn).unwrap(), bytes }
}

fn fragment(slot: u64, entries: &[Entry]) -> Fragment {
    let object = fragment::encode(INC, Slot(slot), PutId::from_bytes([3; 16]), entries);
    match fragment::decode(&object, INC, Slot(slot)).unwrap() {
        SlotObject::Fragment(fragment) => fragment,
        SlotObject::Tombstone { .. } => panic!("not a fragment"),
    }
}

fn part(object: &Bytes, section: &Section) -> Bytes {
    let range = section.range();
    object.slice(range.start as usize..range.end as usize)
}

/// Every run of `database`, found as a reader finds it.
fn runs_of(object: &Bytes, reference: &BundleRef, database: DatabaseId) -> Vec<Run> {
    let blocks = reference.decode_index(&part(object, &reference.index)).unwrap();
    let Some(block) = block_of(&blocks, database).map(|block| blocks[block]) else { return Vec::new() };
    let runs = block.decode(&part(object, &block.section)).unwrap();
    runs.into_iter().filter(|run| run.database == database).collect()
}

#[test]
fn golden_bundle() {
    let mut gathered = Gathered::default();
    gathered.add(fragment(5, &[entry(9, 1, 4, b"four"), entry(8, 1, 1, b"one")])).unwrap();
    gathered.add(fragment(6, &[entry(9, 1, 5, b"five"), entry(9, 2, 6, b"six")])).unwrap();
    let (object, reference) = gathered.encode(INC, 7, NONCE);
    let mut out = Writer::new();
    reference.encode(&mut out);
    let reference_bytes = out.finish();
    assert_eq!(reference_bytes.len(), REFERENCE_BYTES);
    let hash = blake3::hash(&[&object[..], &reference_bytes].concat());
    assert_eq!(hash.to_hex()[..16], *include_str!("../../golden/bundle.b3").trim());
    assert!(envelope::open_as(&object, Kind::Bundle, VERSION, 10_000).is_ok());

    let found = runs_of(&object, &reference, database(9));
    let inline = |text: &'static str| Content::Inline(text.into());
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].epoch, &found[0].commits[..]), (1, &[inline("four"), inline("five")][..]));
    assert_eq!((found[1].epoch, &found[1].commits[..]), (2, &[inline("six")][..]));
    assert_eq!(runs_of(&object, &reference, database(7)), []);
    assert_eq!(runs_of(&object, &reference, database(10)), []);
    assert_eq!((reference.first, reference.end), (Slot(5), Slot(7)));
}

#[test]
fn a_database_is_never_cut_and_blocks_stay_small() {
    let mut gathered = Gathered::default();
    let commit = vec![7; 100 << 10];
    for slot in 0..8 {
        let entries: Vec<Entry> = (1..=6).map(|byte| entry(byte, 1, slot + 1, &commit)).collect();
        gathered.add(fragment(slot, &entries)).unwrap();
    }
    let (object, reference) = gathered.encode(INC, 0, NONCE);
    let blocks = reference.decode_index(&part(&object, &reference.index)).unwrap();
    assert_eq!(blocks.len(), 6, "800 KiB of each database");
    for byte in 1..=6 {
        assert_eq!(runs_of(&object, &reference, database(byte))[0].commits.len(), 8);
    }
}

#[test]
fn a_commit_that_stands_twice_in_the_log_is_corruption() {
    let mut gathered = Gathered::default();
    gathered.add(fragment(0, &[entry(1, 1, 1, b"a"), entry(1, 1, 2, b"b")])).unwrap();
    assert!(gathered.add(fragment(1, &[entry(1, 1, 2, b"b")])).is_err());
}

#[test]
fn a_flipped_bit_is_noticed_in_the_part_that_it_hits() {
    let mut gathered = Gathered::default();
    gathered.add(fragment(0, &[entry(1, 1, 1, b"a"), entry(2, 1, 1, b"b")])).unwrap();
    let (object, reference) = gathered.encode(INC, 0, NONCE);
    let index = part(&object, &reference.index);
    let blocks = reference.decode_index(&index).unwrap();
    for at in 0..index.len() {
        let mut bytes = index.to_vec();
        bytes[at] ^= 1;
        assert!(reference.decode_index(&bytes.into()).is_err());
    }
    let block = part(&object, &blocks[0].section);
    for at in 0..block.len() {
        let mut bytes = block.to_vec();
        bytes[at] ^= 1;
        assert!(blocks[0].decode(&bytes.into()).is_err());
    }
}

proptest! {
    #[test]
    fn every_commit_of_a_log_is_found_in_its_bundle(
        slots in proptest::collection::vec(proptest::collection::vec((0u8..6, 0usize..60), 1..12), 1..12)
    ) {
        let mut next = [0u64; 6];
        let mut expected: BTreeMap<u8, Vec<Content>> = BTreeMap::new();
        let mut gathered = Gathered::default();
        for (slot, commits) in (0u64..).zip(&slots) {
            let entries: Vec<Entry> = commits.iter().map(|&(byte, length)| {
                next[byte as usize] += 1;
                let entry = entry(byte, 1, next[byte as usize], &vec![slot as u8; length]);
                expected.entry(byte).or_default().push(entry.bytes.clone());
                entry
            }).collect();
            gathered.add(fragment(slot, &entries)).unwrap();
        }
        let (object, reference) = gathered.encode(INC, 0, NONCE);
        for byte in 0..6 {
            let found = runs_of(&object, &reference, database(byte));
            let commits: Vec<Content> = found.iter().flat_map(|run| run.commits.clone()).collect();
            prop_assert_eq!(commits, expected.remove(&byte).unwrap_or_default());
        }
    }

    #[test]
    fn hostile_parts_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let section = Section::of(&bytes, 0);
        let reference = BundleRef { number: 0, nonce: NONCE, first: Slot(0), end: Slot(1), index: section };
        let _ = reference.decode_index(&bytes);
        let _ = BlockRef { first: database(1), section }.decode(&bytes);
        let _ = BundleRef::decode(&mut Reader::new(&bytes));
    }
}
