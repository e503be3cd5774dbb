use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::fragment::Entry;

fn database(number: u32) -> DatabaseId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    DatabaseId::from_bytes(id)
}

fn commit(number: u32, lsn: u64, bytes: usize, window_micros: u64) -> Commit {
    let bytes = Bytes::from(vec![7; bytes]).into();
    let entry = Entry { database: database(number), epoch: 1, lsn: Lsn::new(lsn).unwrap(), bytes };
    Commit { entry, window_micros, home: 0, side: None }
}

fn push_many(queue: &mut Queue, number: u32, count: u64, bytes: usize) {
    (1..=count).for_each(|lsn| queue.push(commit(number, lsn, bytes, 0), 0));
}

/// How many commits of a database are in a batch.
fn count_of(batch: &Batch, number: u32) -> usize {
    batch.commits.iter().filter(|(commit, _)| commit.entry.database == database(number)).count()
}

#[test]
fn what_fits_leaves_at_once() {
    let mut queue = Queue::default();
    push_many(&mut queue, 1, 50, 600);
    push_many(&mut queue, 2, 1, 60_000);
    push_many(&mut queue, 3, 1, 9);
    let batch = queue.take(0);
    assert_eq!((batch.commits.len(), batch.bytes), (52, 50 * 600 + 60_000 + 9));
    assert!(queue.is_empty() && queue.ready().is_none());
}

#[test]
fn a_commit_larger_than_a_fragment_leaves_as_well() {
    let mut queue = Queue::default();
    push_many(&mut queue, 1, 2, 3 * limits::FRAGMENT_BYTES_TARGET);
    assert_eq!(queue.take(0).commits.len(), 1);
    assert_eq!(queue.take(0).commits.len(), 1);
    assert!(queue.is_empty());
}

#[test]
fn ninety_nine_quiet_databases_pass_a_flooder_in_the_next_batch() {
    let mut queue = Queue::default();
    push_many(&mut queue, 0, 50_000, 600);
    for round in 1..=20 {
        (1..100).for_each(|quiet| queue.push(commit(quiet, round, 600, 0), 0));
        let batch = queue.take(0);
        assert!((1..100).all(|quiet| count_of(&batch, quiet) == 1), "in round {round}");
        assert_eq!(batch.commits.len(), 99 + count_of(&batch, 0));
        assert!(batch.bytes >= limits::FRAGMENT_BYTES_TARGET, "the rest of the batch is the flooder's");
        assert!(batch.bytes < limits::FRAGMENT_BYTES_TARGET + 600);
    }
}

#[test]
fn what_is_left_behind_keeps_its_own_deadline() {
    let mut queue = Queue::default();
    (1..=300).for_each(|lsn| queue.push(commit(1, lsn, 1_000, 500_000), 100 + lsn));
    queue.push(commit(2, 1, 10, 0), 500);
    assert_eq!(queue.ready().unwrap().deadline_micros, 500);
    let sent = queue.take(500).commits.len() as u64 - 1;
    let left = queue.ready().unwrap();
    assert_eq!((left.commits as u64, left.bytes as u64), (300 - sent, (300 - sent) * 1_000));
    assert_eq!((left.opened_micros, left.deadline_micros), (101 + sent, 101 + sent + 500_000));
    // A plan was changed meanwhile: now the newest commit is the most impatient.
    queue.push(commit(1, 301, 1_000, 1_000), 700);
    assert_eq!(queue.ready().unwrap().deadline_micros, 1_700);
}

#[test]
fn a_flooder_is_held_and_nobody_else_is() {
    let mut queue = Queue::default();
    let part = 64 << 10;
    let burst = limits::DATABASE_BURST_BYTES as u64 / part;
    push_many(&mut queue, 1, burst + 20, part as usize);
    let mut sent = 0;
    while queue.ready().is_some() {
        sent += queue.take(0).commits.len() as u64;
    }
    assert_eq!(sent, burst);
    assert!(!queue.is_empty(), "the rest waits for the bucket");
    let until = queue.held_until().unwrap();
    queue.push(commit(1, burst + 21, 600, 0), 5);
    assert!(queue.ready().is_none(), "and so does what comes behind it");
    queue.push(commit(2, 1, 600, 0), 5);
    let batch = queue.take(5);
    assert_eq!((batch.commits.len(), count_of(&batch, 2)), (1, 1));
    queue.release_held(until - 1);
    assert!(queue.ready().is_none());
    queue.release_held(until);
    let ready = queue.ready().unwrap();
    assert_eq!((ready.commits, ready.opened_micros), (21, 0));
    assert_eq!(queue.take(until).bytes as u64, 2 * part, "a fragment's worth has flowed in");
}

#[test]
fn a_flooder_that_comes_back_with_an_empty_bucket_is_held_at_once() {
    let mut queue = Queue::default();
    queue.push(commit(1, 1, limits::DATABASE_BURST_BYTES + (1 << 20), 0), 0);
    queue.take(0);
    assert!(queue.is_empty());
    queue.push(commit(1, 2, 600, 0), 10);
    assert!(queue.ready().is_none());
    queue.release_held(queue.held_until().unwrap());
    assert_eq!(queue.ready().unwrap().commits, 1);
}

#[test]
fn what_is_folded_leaves_unneeded() {
    let mut queue = Queue::default();
    push_many(&mut queue, 1, 3, 600);
    queue.on_folded(database(1), Lsn::new(2).unwrap());
    queue.on_folded(database(2), Lsn::new(9).unwrap());
    let needed: Vec<bool> = queue.take(0).commits.iter().map(|(_, is_needed)| *is_needed).collect();
    assert_eq!(needed, [false, false, true]);
    queue.push(commit(1, 1, 600, 0), 0);
    assert!(queue.take(0).commits[0].1, "it is forgotten with the commits that it was about");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_small_commit_leaves_within_the_stated_number_of_batches(
        others in 1u32..200, sizes in proptest::collection::vec(1usize..=limits::TURN_BYTES, 1..20),
        taken_before in 0usize..5,
    ) {
        let mut queue = Queue::default();
        let bound = 1 + (others as usize).div_ceil(32);
        for other in 1..=others {
            // More than all of these batches could carry.
            let mut bytes = 0;
            for lsn in 1.. {
                let size = sizes[(lsn as usize + other as usize) % sizes.len()];
                queue.push(commit(other, lsn, size, 0), 0);
                bytes += size;
                if bytes > (bound + 6) * limits::FRAGMENT_BYTES_TARGET / others as usize + 4 * limits::TURN_BYTES {
                    break;
                }
            }
        }
        (0..taken_before).for_each(|_| drop(queue.take(0)));
        queue.push(commit(0, 1, limits::TURN_BYTES, 0), 0);
        let batches = (1..=bound).find(|_| count_of(&queue.take(0), 0) == 1);
        prop_assert!(batches.is_some(), "not within {bound} batches");
    }

    #[test]
    fn every_commit_leaves_once_and_in_order(
        steps in proptest::collection::vec((0u32..6, 0usize..30_000, 0u64..1_000, any::<bool>()), 1..200)
    ) {
        let mut queue = Queue::default();
        let (mut pushed, mut left) = ([0u64; 6], [0u64; 6]);
        let mut now = 0;
        let mut check = |batch: Batch| {
            let bytes: usize = batch.commits.iter().map(|(commit, _)| commit.entry.bytes.len()).sum();
            assert_eq!(bytes, batch.bytes);
            for (commit, _) in batch.commits {
                let number = (0..6).find(|number| database(*number) == commit.entry.database).unwrap() as usize;
                left[number] += 1;
                assert_eq!(commit.entry.lsn.get(), left[number]);
            }
            left
        };
        for (number, bytes, pause, takes) in steps {
            now += pause;
            pushed[number as usize] += 1;
            queue.push(commit(number, pushed[number as usize], bytes, pause), now);
            if takes {
                check(queue.take(now));
            }
            let waiting: usize = queue.lines.values().map(|line| line.commits.len()).sum();
            prop_assert_eq!(queue.ready().map_or(0, |ready| ready.commits), waiting);
        }
        while queue.ready().is_some() {
            check(queue.take(now));
        }
        prop_assert_eq!(check(Batch::default()), pushed);
        prop_assert!(queue.is_empty());
    }
}
