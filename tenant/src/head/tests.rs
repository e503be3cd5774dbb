//! The bytes of heads, and what makes one invalid.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use walstore::envelope::{self, Kind};
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::limits::COUNTER_MAX;
use walstore::register::Record;
use walstore::store::Key;

use super::codec::VERSION;
use super::*;
use crate::limits;

fn database(byte: u8) -> DatabaseId {
    DatabaseId::from_bytes([byte; 16])
}

fn incarnation(byte: u8) -> IncarnationId {
    IncarnationId::from_bytes([byte; 16])
}

fn entry(byte: u8, epoch: u64, after: u64) -> TailEntry {
    TailEntry { incarnation: incarnation(byte), epoch, after: Lsn::new(after) }
}

/// A head in which every field has something.
fn full() -> Head {
    Head {
        put_id: PutId::from_bytes([1; 16]),
        version: 12,
        epoch: 7,
        database: database(2),
        state: HeadState::Live,
        name: Name::parse("app.prod").unwrap(),
        settings: Settings {
            window_millis: 25,
            retention_secs: 604_800,
            size_pages_max: 262_144,
            key_id: 0,
            created_micros: 1_709_208_000_000_000,
            expires_micros: 1_740_744_000_000_000,
        },
        parent: Some(ForkPoint { parent: database(3), lsn: Lsn::new(40) }),
        owner: Some(incarnation(4)),
        folded: Folded {
            lsn: Lsn::new(100),
            chain: [5; 16],
            time_micros: 1_709_208_100_000_000,
            page_count: 33,
            pages_total: 450,
        },
        tail: vec![entry(6, 5, 100), entry(4, 7, 130)],
        map: MapField::Inline(Bytes::from_static(b"a page map, opaque to this crate")),
        horizon: Lsn::new(50),
        history: Bytes::from_static(b"an index of the history, opaque too"),
        fold_seq: 19,
        pins: vec![Pin { child: database(7), lsn: Lsn::new(88) }, Pin { child: database(8), lsn: None }],
        pin_chunks: vec![Key::new("t/0000/x/m/1")],
        dead: vec![PackRef(Bytes::from_static(b"pack one")), PackRef(Bytes::from_static(b"pack two"))],
        inline_image: Some(Bytes::from_static(b"an image")),
    }
}

/// Codecs may compress better one day, so the golden file is of what is inside.
#[test]
fn golden_head() {
    assert_eq!(blake3::hash(&full().encode_body()).to_hex()[..16], *include_str!("../../golden/head.b3").trim());
}

#[test]
fn a_full_head_and_every_final_state_round_trip() {
    let head = full();
    assert_eq!(Head::decode(&head.encode()), Ok(head.clone()));
    let other = Name::parse("other").unwrap();
    for state in [
        HeadState::Moved { new: database(9) },
        HeadState::Renamed { name: other },
        HeadState::Deleted { at_micros: 5 },
        HeadState::Aborted,
    ] {
        let head = Head { state, owner: None, tail: Vec::new(), ..head.clone() };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
    }
    let shared = Head { map: MapField::Shared(ChunkRef(Bytes::from_static(&[1; 96]))), ..head };
    assert_eq!(Head::decode(&shared.encode()), Ok(shared));
}

#[test]
fn the_largest_head_that_may_be_written_can_be_read() {
    let noise = |length: usize, seed: u64| -> Bytes {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes.into()
    };
    let last = 1;
    let head = Head {
        folded: Folded { lsn: Lsn::new(last), ..full().folded },
        parent: None,
        tail: (1..=limits::TAIL_ENTRIES_MAX as u64).map(|epoch| entry(4, epoch, last)).collect(),
        epoch: limits::TAIL_ENTRIES_MAX as u64,
        horizon: None,
        map: MapField::Inline(noise(limits::MAP_INLINE_BYTES_MAX, 1)),
        history: noise(limits::HISTORY_BYTES_MAX, 3),
        pins: (0..limits::PINS_MAX as u8).map(|byte| Pin { child: database(byte), lsn: None }).collect(),
        pin_chunks: vec![Key::new("k".repeat(limits::KEY_BYTES_MAX)); limits::PIN_CHUNKS_MAX],
        dead: (0..limits::DEAD_MAX as u64).map(|n| PackRef(noise(limits::PACK_REFERENCE_BYTES_MAX, n))).collect(),
        inline_image: Some(noise(limits::INLINE_IMAGE_BYTES_MAX, 2)),
        ..full()
    };
    assert_eq!(Head::decode(&head.encode()), Ok(head));
}

/// Each row breaks one rule, and the message says which.
#[test]
fn a_head_that_contradicts_itself_is_corrupt() {
    type Break = fn(&mut Head);
    let rows: [(&str, Break); 19] = [
        ("version 0", |head| head.version = 0),
        ("epoch 0", |head| head.epoch = 0),
        ("a window of 501 ms", |head| head.settings.window_millis = 501),
        ("the tail ends with", |head| head.tail.clear()),
        ("the tail ends with", |head| head.owner = None),
        ("the tail ends with", |head| head.epoch = 8),
        ("the tail begins after", |head| head.tail[0].after = Lsn::new(99)),
        ("the tail begins after", |head| head.folded.lsn = Lsn::new(101)),
        ("in the tail", |head| head.tail[0].epoch = 7),
        ("in the tail", |head| head.tail[1].after = Lsn::new(99)),
        ("the horizon", |head| head.horizon = Lsn::new(101)),
        ("a pin lies above", |head| head.pins[0].lsn = Lsn::new(101)),
        ("pinned twice", |head| head.pins[1].child = database(7)),
        ("its own fork point", |head| head.parent = Some(ForkPoint { parent: database(3), lsn: Lsn::new(101) })),
        ("but owned by", |head| head.state = HeadState::Deleted { at_micros: 1 }),
        ("bytes of pack reference", |head| head.dead[0] = PackRef(Bytes::from_static(&[0; 65]))),
        ("bytes of page map", |head| head.map = MapField::Inline(vec![0; limits::MAP_INLINE_BYTES_MAX + 1].into())),
        ("bytes of chunk", |head| head.map = MapField::Shared(ChunkRef(Bytes::from_static(&[0; 97])))),
        ("bytes of history", |head| head.history = vec![0; limits::HISTORY_BYTES_MAX + 1].into()),
    ];
    for (message, break_it) in rows {
        let mut head = full();
        break_it(&mut head);
        let object = envelope::seal_compressed(Kind::Head, VERSION, &head.encode_body());
        let error = Head::decode(&object).expect_err(message);
        assert!(error.reason.contains(message), "{error} does not say {message:?}");
    }
}

#[test]
fn a_final_head_that_leads_to_itself_is_corrupt() {
    let ended = Head { owner: None, tail: Vec::new(), ..full() };
    let name = ended.name.clone();
    for state in [HeadState::Moved { new: database(2) }, HeadState::Renamed { name }] {
        assert!(Head { state, ..ended.clone() }.check().is_err());
    }
}

prop_compose! {
    /// Any head that passes its check: numbers are drawn small, so that equal and adjacent ones are common.
    pub(crate) fn heads()(
        (ids, version, epoch, folded) in (any::<[u8; 5]>(), 1..=COUNTER_MAX, 1u64..1 << 60, 0u64..200),
        (window_millis, numbers) in (0u16..=500, any::<[u32; 4]>()),
        steps in vec((0u8..4, 1u64..3, 0u64..40), 0..6),
        (map, shared) in (vec(any::<u8>(), 0..200), option::of(vec(any::<u8>(), 0..96))),
        (history, fold_seq) in (vec(any::<u8>(), 0..200), any::<u32>()),
        pins in vec((any::<u8>(), 0u64..200), 0..5),
        (dead, image) in (vec(vec(any::<u8>(), 0..64), 0..5), option::of(vec(any::<u8>(), 0..50))),
        (is_fork, state) in (any::<bool>(), 0u8..8),
    ) -> Head {
        let mut next = (epoch, folded);
        let mut tail = Vec::new();
        for (byte, epochs, commits) in steps {
            tail.push(entry(byte, next.0, next.1));
            next = (next.0 + epochs, next.1 + commits);
        }
        let state = match state {
            0 => HeadState::Deleted { at_micros: version },
            1 => HeadState::Moved { new: DatabaseId::from_bytes([!ids[0]; 16]) },
            2 => HeadState::Aborted,
            _ => HeadState::Live,
        };
        if state.is_final() {
            tail.clear();
        }
        let last = tail.last().copied();
        let mut pinned: Vec<Pin> = Vec::new();
        for (child, lsn) in pins {
            if pinned.iter().all(|pin| pin.child != database(child)) {
                pinned.push(Pin { child: database(child), lsn: Lsn::new(lsn.min(folded)) });
            }
        }
        Head {
            put_id: PutId::from_bytes([ids[1]; 16]),
            version,
            epoch: last.map_or(epoch, |entry| entry.epoch),
            database: database(ids[0]),
            state,
            name: Name::parse("name").unwrap(),
            settings: Settings {
                window_millis,
                retention_secs: numbers[0],
                size_pages_max: numbers[1],
                key_id: ids[2],
                created_micros: u64::from(numbers[2]),
                expires_micros: u64::from(numbers[3]),
            },
            parent: is_fork.then_some(ForkPoint { parent: database(ids[3]), lsn: Lsn::new(folded / 2) }),
            owner: last.map(|entry| entry.incarnation),
            folded: match folded {
                0 => Folded::default(),
                _ => Folded {
                    lsn: Lsn::new(folded),
                    chain: [ids[4]; 16],
                    time_micros: u64::from(numbers[3]),
                    page_count: numbers[0],
                    pages_total: folded,
                },
            },
            tail,
            map: match shared {
                None => MapField::Inline(map.into()),
                Some(shared) => MapField::Shared(ChunkRef(shared.into())),
            },
            horizon: Lsn::new(folded / 3),
            history: history.into(),
            fold_seq,
            pins: pinned,
            pin_chunks: Vec::new(),
            dead: dead.into_iter().map(|pack| PackRef(pack.into())).collect(),
            inline_image: image.map(Bytes::from),
        }
    }
}

proptest! {
    #[test]
    fn every_valid_head_round_trips(head in heads()) {
        prop_assert!(head.check().is_ok(), "{:?}", head.check());
        prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Head::decode(&Bytes::from(bytes.clone()));
        let _ = Head::decode(&envelope::seal(Kind::Head, VERSION, &bytes));
    }

    /// Damage under a right checksum either is noticed, or is another head that can be written again.
    #[test]
    fn a_damaged_head_is_refused_or_is_a_head(
        head in heads(),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = head.encode_body();
        let at = at.index(body.len());
        body[at] = byte;
        let cut = cut.index(body.len());
        for body in [&body[..], &body[..cut]] {
            if let Ok(head) = Head::decode(&envelope::seal(Kind::Head, VERSION, body)) {
                prop_assert_eq!(&head.encode_body()[..], body);
                prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
            }
        }
    }
}
