use super::*;
use crate::pack::{FrameRef, Section};
use crate::page::SEGMENT_BYTES;
use walstore::id::{DatabaseId, Lsn};

fn at(nonce: u64, offset: u32) -> FrameAt {
    let pack = PackId { owner: DatabaseId::from_bytes([1; 16]), epoch: 1, seq: 1, nonce };
    FrameAt { pack, frame: FrameRef { offset, bytes: 1, crc: 1 } }
}

fn frame(byte: u8) -> Frame {
    let stored = [&[0, 32][..], &vec![byte; SEGMENT_BYTES]].concat();
    let reference = FrameRef { offset: 0, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
    Frame::decode(&stored, &reference).unwrap()
}

#[test]
fn frames_and_indexes_are_found_by_pack_and_offset() {
    let cache = PageCache::new(1 << 20);
    cache.insert_frame(&at(1, 16), frame(7));
    let page = |at: FrameAt, place| cache.page(&Source { at, place });
    assert_eq!(page(at(1, 16), 31).unwrap().unwrap().as_bytes()[0], 7);
    assert!(page(at(1, 16), 32).unwrap().is_err());
    assert!(page(at(1, 17), 0).is_none() && page(at(2, 16), 0).is_none());

    let index = Section { offset: 900, bytes: 3, crc: 0 };
    let pack = at(1, 0).pack;
    let delta = DeltaRef { pack, lsn: Lsn::FIRST, index, page_count: 0, frames_bytes: 0, valid_upto: 0 };
    assert!(cache.index(&delta).is_none());
    cache.insert_index(&delta, Arc::default());
    assert!(cache.index(&delta).is_some() && cache.frame(&at(1, 900)).is_none());
}

#[test]
fn the_capacity_bounds_bytes_not_entries() {
    let cache = PageCache::new(10 * SEGMENT_BYTES as u64);
    for nonce in 0..100 {
        cache.insert_frame(&at(nonce, 16), frame(nonce as u8));
    }
    let bytes = cache.weight_bytes();
    assert!(bytes <= 10 * SEGMENT_BYTES as u64 && bytes > 5 * SEGMENT_BYTES as u64, "{bytes}");
}

#[test]
fn a_full_cache_keeps_what_has_just_come() {
    let cache = PageCache::new(32 * SEGMENT_BYTES as u64);
    // Full of what is asked for often.
    for _ in 0..20 {
        for nonce in 0..28 {
            if cache.frame(&at(nonce, 16)).is_none() {
                cache.insert_frame(&at(nonce, 16), frame(1));
            }
        }
    }
    for nonce in 100..200 {
        cache.insert_frame(&at(nonce, 16), frame(2));
        assert!((0..3).all(|_| cache.frame(&at(nonce, 16)).is_some()), "a scan comes back for more of its pages");
    }
    let kept = (0..28).filter(|nonce| cache.frame(&at(*nonce, 16)).is_some()).count();
    assert!(kept >= 20, "and pushes little out: {kept}");
}

#[test]
fn what_is_read_ahead_waits_and_pushes_out_only_its_own_part() {
    let cache = PageCache::new(64 * SEGMENT_BYTES as u64);
    for nonce in 0..48 {
        cache.insert_frame(&at(nonce, 16), frame(1));
    }
    assert_eq!(cache.room_ahead(), 12 * SEGMENT_BYTES);
    for nonce in 100..112 {
        cache.insert_frame_ahead(&at(nonce, 16), frame(2));
    }
    assert_eq!(cache.room_ahead(), 0);
    for nonce in 100..112 {
        assert!(cache.has_frame(&at(nonce, 16)) && cache.frame(&at(nonce, 16)).is_some());
    }
    assert_eq!(cache.room_ahead(), 12 * SEGMENT_BYTES, "it is used now");
    (200..1_000).for_each(|nonce| cache.insert_frame_ahead(&at(nonce, 16), frame(3)));
    let kept = (0..48).filter(|nonce| cache.has_frame(&at(*nonce, 16))).count();
    // Twelve were read ahead and then asked for: they count as much as the first.
    assert!(kept >= 34, "{kept} of 48");
    assert!(cache.weight_bytes() <= 64 * SEGMENT_BYTES as u64);
}

#[test]
fn what_is_kept_as_stored_takes_little_room_and_is_decoded_in_turn_or_when_it_is_asked_for() {
    let cache = PageCache::new(64 * SEGMENT_BYTES as u64);
    let pages: Vec<Page> = (0..32).map(|byte| Page::copy_of(&[byte; 4096])).collect();
    let stored = crate::pack::encode_frame(pages.iter());
    let reference = FrameRef { offset: 16, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
    let frame = StoredFrame::copy_of(&stored, &reference).unwrap();
    (0..40).for_each(|nonce| cache.insert_stored_ahead(&at(nonce, 16), frame.clone()));
    let stored_bytes = stored.len() + recent::ENTRY_BYTES;
    assert!(cache.weight_bytes() == 40 * stored_bytes as u64 && stored_bytes < SEGMENT_BYTES / 10);
    let room = |stored_count: usize, decoded_count: usize| {
        12 * SEGMENT_BYTES - stored_count * stored_bytes - decoded_count * (SEGMENT_BYTES + recent::ENTRY_BYTES)
    };
    assert_eq!(cache.room_ahead(), room(40, 0));

    // Some are decoded, in their order but for the very first ones.
    assert!(cache.wants_decoding() && !cache.is_next_to_decode());
    let decoded = std::iter::from_fn(|| cache.decode_next().then_some(())).count();
    assert_eq!((decoded, cache.room_ahead()), (3, room(37, 3)));
    assert!(!cache.wants_decoding());
    for nonce in 0..40 {
        assert_eq!(cache.frame(&at(nonce, 16)).unwrap().page(31).unwrap(), pages[31], "{nonce}");
    }
    assert_eq!(cache.room_ahead(), room(0, 0));
    assert!(cache.is_next_to_decode() && !cache.decode_next());
    assert!(cache.weight_bytes() <= 64 * SEGMENT_BYTES as u64);

    // What cannot be decoded is missing.
    let damaged = [&[1, 32][..], &[7; 100]].concat();
    let reference = FrameRef { offset: 16, bytes: 102, crc: crc32c::crc32c(&damaged) };
    assert!(StoredFrame::copy_of(&damaged[1..], &reference).is_err());
    cache.insert_stored_ahead(&at(99, 16), StoredFrame::copy_of(&damaged, &reference).unwrap());
    assert!(cache.has_frame(&at(99, 16)) && cache.frame(&at(99, 16)).is_none() && !cache.has_frame(&at(99, 16)));
}

#[test]
fn frames_of_next_to_nothing_are_not_for_nothing() {
    let cache = PageCache::new(64 << 10);
    let zeros = vec![Page::copy_of(&[0; 4096]); 32];
    let stored = crate::pack::encode_frame(zeros.iter());
    let reference = FrameRef { offset: 16, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
    let frame = StoredFrame::copy_of(&stored, &reference).unwrap();
    assert!(stored.len() < 100, "{}", stored.len());
    (0..10_000).for_each(|nonce| cache.insert_stored_ahead(&at(nonce, 16), frame.clone()));
    let kept = (0..10_000).filter(|nonce| cache.has_frame(&at(*nonce, 16))).count();
    assert!((1..=(16 << 10) / recent::ENTRY_BYTES).contains(&kept), "{kept}");
    assert_eq!(cache.weight_bytes(), (kept * (stored.len() + recent::ENTRY_BYTES)) as u64);
}

#[test]
fn a_flood_of_one_database_leaves_the_others_what_they_used_last() {
    let cache = PageCache::new(64 * SEGMENT_BYTES as u64);
    let of = |database: u8, nonce: u64| {
        let place = at(nonce, 16);
        FrameAt { pack: PackId { owner: DatabaseId::from_bytes([database; 16]), ..place.pack }, ..place }
    };
    (2..6).for_each(|database| (0..3).for_each(|nonce| cache.insert_frame(&of(database, nonce), frame(1))));
    for nonce in 0..1_000 {
        // Asked for often, too: none of it is let go of because nobody wants it.
        cache.insert_frame(&of(1, nonce), frame(2));
        (0..3).for_each(|_| drop(cache.frame(&of(1, nonce))));
    }
    for database in 2..6 {
        assert!((0..3).all(|nonce| cache.has_frame(&of(database, nonce))), "database {database}");
    }
    assert!(cache.weight_bytes() <= 64 * SEGMENT_BYTES as u64);
    // With more databases than there is room for, those go that were used longest ago.
    (10..100).for_each(|database| cache.insert_frame_ahead(&of(database, 0), frame(3)));
    let kept: Vec<u8> = (10..100).filter(|database| cache.has_frame(&of(*database, 0))).collect();
    assert_eq!(kept.last(), Some(&99));
    assert!((12..=16).contains(&kept.len()) && kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{kept:?}");
}

#[test]
fn a_cache_gives_way_to_what_is_lent_and_has_it_back_afterwards() {
    let segment = SEGMENT_BYTES as u64;
    let bytes_max = 66 * SEGMENT_BYTES;
    let terms = Lending { free_bytes: 10 * SEGMENT_BYTES, bytes_max, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(64 * segment, terms);
    let fill = |from: u64| (from..from + 200).for_each(|nonce| cache.insert_frame(&at(nonce, 16), frame(1)));
    fill(0);
    assert!(cache.weight_bytes() > 50 * segment);
    let mut loan = cache.lend();
    loan.set(10 * SEGMENT_BYTES);
    assert!(cache.weight_bytes() > 50 * segment, "so much is free");
    assert!(loan.try_set(50 * SEGMENT_BYTES));
    assert!(cache.weight_bytes() <= 24 * segment, "{}", cache.weight_bytes());
    fill(1_000);
    let bytes = cache.weight_bytes();
    assert!((12 * segment..=24 * segment).contains(&bytes), "{bytes}");
    assert!(cache.has_frame(&at(1_199, 16)), "what has come last is there");
    loan.set(500 * SEGMENT_BYTES);
    assert!(cache.weight_bytes() <= 8 * segment);
    fill(2_000);
    assert!(cache.weight_bytes() <= 8 * segment && cache.has_frame(&at(2_199, 16)), "never nothing");
    drop(loan);
    assert_eq!(cache.lent_bytes(), 0);
    fill(3_000);
    assert!(cache.weight_bytes() > 50 * segment);
}

#[test]
fn what_gives_way_is_drawn_by_lot_so_that_no_database_loses_everything() {
    let segment = SEGMENT_BYTES as u64;
    let terms = Lending { free_bytes: 0, bytes_max: usize::MAX, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(128 * segment, terms);
    let of = |database: u8, nonce: u64| {
        let place = at(nonce, 16);
        FrameAt { pack: PackId { owner: DatabaseId::from_bytes([database; 16]), ..place.pack }, ..place }
    };
    // Each is asked for, so that they are all in the part that gives way by lot.
    for (database, nonce) in (1..5).flat_map(|database| (0..20).map(move |nonce| (database, nonce))) {
        cache.insert_frame(&of(database, nonce), frame(1));
        (0..3).for_each(|_| drop(cache.frame(&of(database, nonce))));
    }
    let kept = |database| (0..20).filter(|nonce| cache.has_frame(&of(database, *nonce))).count();
    let before: Vec<usize> = (1..5).map(kept).collect();
    let mut loan = cache.lend();
    loan.set(64 * SEGMENT_BYTES);
    let after: Vec<usize> = (1..5).map(kept).collect();
    assert!(after.iter().sum::<usize>() < before.iter().sum::<usize>(), "{before:?} {after:?}");
    assert!(after.iter().all(|kept| *kept >= 4), "{before:?} {after:?}");
}

#[test]
fn the_capacity_follows_what_is_lent_whoever_changes_it_last() {
    let segment = SEGMENT_BYTES as u64;
    let terms = Lending { free_bytes: 0, bytes_max: usize::MAX, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(64 * segment, terms);
    std::thread::scope(|scope| {
        for thread in 1..4 {
            let cache = cache.clone();
            scope.spawn(move || {
                let mut loan = cache.lend();
                (0..20_000).for_each(|round| loan.set((round * thread) % 64 * SEGMENT_BYTES));
            });
        }
    });
    assert_eq!(cache.lent_bytes(), 0);
    assert_eq!(cache.room_ahead(), 12 * SEGMENT_BYTES, "three quarters of a quarter of all");
}

#[test]
fn what_is_lent_has_a_bound() {
    let terms = Lending { free_bytes: 0, bytes_max: 100, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(1 << 20, terms);
    let [mut small, mut one, mut other] = [cache.lend(), cache.lend(), cache.lend()];
    small.set(30);
    assert!(!small.try_set(101) && small.bytes() == 30);
    assert!(one.try_set_large(60) && !other.try_set_large(20) && other.try_set_large(10));
    assert!(!one.try_set_large(61) && one.try_set_large(50) && other.try_set_large(20));
    assert!(!small.try_set(31), "full");
    drop(other);
    assert!(one.try_set_large(70) && !one.try_set_large(71), "also the only large one");
    assert_eq!(cache.lent_bytes(), 100);
    small.set(40);
    assert_eq!((cache.lent_bytes(), cache.left_to_lend()), (110, 0), "it had to be");
    drop((small, one));
    assert_eq!((cache.lent_bytes(), cache.left_to_lend()), (0, 100));
}

#[test]
fn only_one_large_loan_may_be_over_the_bound_and_only_if_the_largest_are_not_to_fit() {
    let terms = Lending { free_bytes: 0, bytes_max: 100, largest_bytes: 101, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(1 << 20, terms);
    let [mut small, mut one] = [cache.lend(), cache.lend()];
    small.set(30);
    assert!(one.try_set_large(500), "the only large one");
    assert!(!cache.lend().try_set_large(1) && !small.try_set(31) && small.try_set(29));
    // It is large as long as it has anything.
    one.set(70);
    let mut next = cache.lend();
    assert!(!next.try_set_large(2) && next.try_set_large(1));
    one.set(0);
    assert!(next.try_set_large(900));
    drop((small, next, one));
    assert_eq!(cache.lent_bytes(), 0);
}

#[test]
fn what_each_large_loan_may_take_beside_itself_is_left_free() {
    let terms =
        Lending { free_bytes: 0, bytes_max: 100, largest_bytes: 50, beside_each_bytes: 10, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(1 << 20, terms);
    let [mut first, mut second, mut beside] = [cache.lend(), cache.lend(), cache.lend()];
    assert!(first.try_set_large(5) && !second.try_set_large(31) && second.try_set_large(30));
    beside.set(20);
    assert!(first.try_set_large(50), "whatever small ones have taken meanwhile");
    // One that does not grow any more needs nothing beside it.
    first.set(20);
    beside.set(10);
    let mut third = cache.lend();
    assert!(third.try_set_large(1) && !second.try_set_large(31));
    assert!(third.try_set_large(40) && !second.try_set_large(31));
    drop((first, second, third, beside));
    assert_eq!(cache.lent_bytes(), 0);
    let [mut first, mut second] = [cache.lend(), cache.lend()];
    assert!(first.try_set_large(50) && second.try_set_large(30) && !second.try_set_large(31));
}

#[test]
fn large_loans_of_many_threads_all_come_to_their_end() {
    const EACH: usize = 60;
    let terms = Lending { free_bytes: 0, bytes_max: 100, largest_bytes: EACH, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(1 << 20, terms);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cache = cache.clone();
            scope.spawn(move || {
                for round in 0..200 {
                    let mut loan = cache.lend();
                    // It grows while it has something, and waits without giving any of it back.
                    for bytes in (5..=EACH).step_by(5) {
                        while !loan.try_set_large(bytes) {
                            std::thread::yield_now();
                        }
                        assert!(cache.lent_bytes() <= 100);
                        // Some do one step in each request.
                        if (thread + round) % 3 > 0 {
                            loan.rest();
                            std::thread::yield_now();
                        }
                    }
                    // What was acknowledged is there until its fold.
                    loan.set(EACH / 2);
                    std::thread::yield_now();
                }
            });
        }
    });
    assert_eq!(cache.lent_bytes(), 0);
    assert!(cache.lend().try_set_large(EACH), "nobody is first any more");
}

#[test]
fn a_large_loan_that_rests_keeps_from_others_only_what_it_has() {
    let terms =
        Lending { free_bytes: 0, bytes_max: 100, largest_bytes: 60, beside_each_bytes: 5, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(1 << 20, terms);
    let [mut idle, mut other] = [cache.lend(), cache.lend()];
    assert!(idle.try_set_large(10) && !other.try_set_large(31) && other.try_set_large(30), "it is first, and may grow");
    idle.rest();
    assert!(!other.try_set_large(91) && other.try_set_large(90));
    assert!(!idle.try_set_large(11) && idle.bytes() == 10, "by now the other one is first");
    drop(other);
    assert!(idle.try_set_large(100));
    idle.rest();
    idle.set(0);
    assert!(cache.lend().try_set_large(60));
    assert_eq!(cache.lent_bytes(), 0);
}

#[test]
fn large_loans_that_rest_never_fill_up_what_one_of_them_needs_to_come_to_its_end() {
    let terms = Lending { free_bytes: 0, bytes_max: 100, largest_bytes: 60, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(1 << 20, terms);
    let [mut one, mut other, mut third] = [cache.lend(), cache.lend(), cache.lend()];
    for resting in [&mut one, &mut other] {
        assert!(resting.try_set_large(30));
        resting.rest();
    }
    assert!(!third.try_set_large(1), "it might need 60, and there are 40");
    assert!(one.try_set_large(60) && !other.try_set_large(41));
    one.set(0);
    assert!(third.try_set_large(1) && !other.try_set_large(41) && other.try_set_large(40));
    drop((one, other, third));
    assert_eq!(cache.lent_bytes(), 0);
}

#[test]
fn large_loans_that_grow_together_never_wait_for_each_other() {
    let terms = Lending { free_bytes: 0, bytes_max: 100, largest_bytes: 60, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(1 << 20, terms);
    let [mut first, mut second, mut third] = [cache.lend(), cache.lend(), cache.lend()];
    assert!(first.try_set_large(10) && second.try_set_large(30) && third.try_set_large(10));
    assert!(!second.try_set_large(31) && !third.try_set_large(11), "the rest is for the first one");
    assert!(first.try_set_large(60));
    // It has come to its end, and what it leaves behind goes some time.
    first.set(40);
    assert!(third.try_set_large(20) && !second.try_set_large(31), "now it is the third");
    assert!(third.try_set_large(30) && !third.try_set_large(60));
    first.set(0);
    assert!(third.try_set_large(60) && !second.try_set_large(41) && second.try_set_large(40));
    // One that gives up leaves its place, too.
    drop(third);
    assert!(second.try_set_large(60));
    drop((first, second));
    assert!(cache.lend().try_set_large(1));
    assert_eq!(cache.lent_bytes(), 0);
}
