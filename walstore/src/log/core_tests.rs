use std::collections::VecDeque;

use super::*;
use proptest::prelude::*;

const INC: IncarnationId = IncarnationId::from_bytes([1; 16]);

fn commit(database: u8, lsn: u64) -> Commit {
    let entry = Entry {
        database: DatabaseId::from_bytes([database; 16]),
        epoch: 1,
        lsn: Lsn::new(lsn).unwrap(),
        bytes: Bytes::from_static(b"commit").into(),
    };
    Commit { entry, window_micros: 0, home: 0, side: None }
}

fn log() -> LogCore {
    LogCore::new(INC, [9; 16])
}

fn slot_of(actions: &[Action]) -> Option<Slot> {
    actions.iter().find_map(|action| match action {
        Action::Put { slot, .. } => Some(*slot),
        _ => None,
    })
}

fn released(actions: &[Action]) -> Vec<u64> {
    let mut lsns = Vec::new();
    for action in actions {
        if let Action::Durable(commits) = action {
            lsns.extend(commits.iter().map(|commit| commit.lsn.get()));
        }
    }
    lsns
}

#[test]
fn a_commit_that_meets_an_idle_log_goes_out_at_once() {
    let mut log = log();
    let mut now = 1_000_000;
    for lsn in 1..5 {
        let actions = log.on_append(commit(1, lsn), now);
        assert_eq!(slot_of(&actions), Some(Slot(lsn - 1)), "no waiting before commit {lsn}");
        now += 28_000;
        assert_eq!(released(&log.on_put(Slot(lsn - 1), PutOutcome::Stored, now)), [lsn]);
    }
}

#[test]
fn acknowledgements_come_in_slot_order_whatever_order_the_store_answers_in() {
    let mut log = log();
    let mut now = 0;
    for lsn in 1..=3 {
        log.on_append(commit(1, lsn), now);
        now += 1_000_000;
        log.on_tick(now);
    }
    assert_eq!(released(&log.on_put(Slot(2), PutOutcome::Stored, now)), []);
    assert_eq!(released(&log.on_put(Slot(1), PutOutcome::Stored, now)), []);
    assert_eq!(log.durable_end(), Slot(0));
    assert_eq!(released(&log.on_put(Slot(0), PutOutcome::Stored, now)), [1, 2, 3]);
    assert_eq!(log.durable_end(), Slot(3));
}

/// 64 clients in a closed loop on a store that takes about 28 ms. Each sends its next commit after the one
/// before it was acknowledged, `cpu_micros` after the client before it in the crowd: one processor serves them
/// all. How many commits share a PUT, and how long does one take at most?
fn crowd(cpu_micros: u64, first_within_micros: u64) -> (u64, u64) {
    let mut log = log();
    let mut now = 0;
    let mut lsn = 0;
    let mut arrivals: VecDeque<u64> = (0..64).map(|n| n * first_within_micros / 64).collect();
    let mut waiting: VecDeque<u64> = VecDeque::new();
    let mut puts: BTreeMap<u64, Slot> = BTreeMap::new();
    let (mut put_count, mut acknowledged, mut longest) = (0, 0, 0);
    while acknowledged < 6_400 {
        let wake = log.wake_at(now).unwrap_or(u64::MAX);
        let answer = puts.keys().next().copied().unwrap_or(u64::MAX);
        let arrival = arrivals.front().copied().unwrap_or(u64::MAX);
        now = wake.min(answer).min(arrival);
        let actions = if now == arrival {
            arrivals.pop_front();
            waiting.push_back(now);
            lsn += 1;
            log.on_append(commit(1, lsn), now)
        } else if now == answer {
            let slot = puts.remove(&answer).unwrap();
            log.on_put(slot, PutOutcome::Stored, now)
        } else {
            log.on_tick(now)
        };
        let count = released(&actions).len();
        for sent in waiting.drain(..count) {
            acknowledged += 1;
            // The first commits meet a log that does not know its store's latency yet.
            if acknowledged > 640 {
                longest = longest.max(now - sent);
            }
        }
        let from = arrivals.back().copied().unwrap_or(0).max(now);
        arrivals.extend((1..=count as u64).map(|n| from + n * cpu_micros));
        if let Some(slot) = slot_of(&actions) {
            put_count += 1;
            let mut answered = now + 26_000 + put_count * 7_919 % 5_000;
            while puts.contains_key(&answered) {
                answered += 1;
            }
            puts.insert(answered, slot);
        }
    }
    (acknowledged / put_count, longest)
}

#[test]
fn a_crowd_of_writers_shares_puts() {
    // Back after 1.3, 6.4 and 15 ms of processor time; all at once in the beginning, or all over a round trip.
    for cpu_micros in [20, 100, 234] {
        for first_within_micros in [640, 28_000] {
            let (commits_per_put, longest) = crowd(cpu_micros, first_within_micros);
            assert!(commits_per_put >= 50, "{commits_per_put} commits per PUT at {cpu_micros} µs");
            assert!(longest <= 2 * 31_000, "a commit took {longest} µs at {cpu_micros} µs");
        }
    }
}

#[test]
fn a_crowd_that_does_not_come_back_is_not_waited_for() {
    let mut log = log();
    let mut now = 0;
    let mut lsn = 0;
    for _ in 0..50 {
        // 32 clients commit once, all at the same time, and are answered 28 ms later.
        for _ in 0..32 {
            lsn += 1;
            log.on_append(commit(1, lsn), now);
        }
        now = log.wake_at(now).unwrap_or(now);
        log.on_tick(now);
        now += 28_000;
        let open: Vec<Slot> = log.in_flight.keys().copied().collect();
        for slot in open {
            log.on_put(slot, PutOutcome::Stored, now);
        }
        // One newcomer, alone, after everybody has gone.
        now += 1_000_000;
        lsn += 1;
        let slot = slot_of(&log.on_append(commit(1, lsn), now)).expect("nobody is waited for");
        now += 28_000;
        log.on_put(slot, PutOutcome::Stored, now);
        now += 1_000_000;
    }
}

#[test]
fn at_most_eight_puts_are_in_flight() {
    let mut log = log();
    let mut slots = 0;
    for lsn in 1..100 {
        let now = lsn * 1_000_000;
        slots += usize::from(slot_of(&log.on_append(commit(1, lsn), now)).is_some());
        slots += usize::from(slot_of(&log.on_tick(now + 500_000)).is_some());
    }
    assert_eq!(slots, limits::PUTS_IN_FLIGHT_MAX);
}

#[test]
fn a_fenced_log_stores_nothing_new_but_acknowledges_what_was_stored_without_a_gap() {
    let mut log = log();
    log.on_append(commit(1, 1), 0);
    log.on_append(commit(1, 2), 0);
    log.on_tick(1_000_000);
    log.on_append(commit(1, 3), 1_000_001);
    assert_eq!(log.on_put(Slot(1), PutOutcome::Fenced, 2_000_000), [Action::Fenced]);
    assert_eq!(log.on_append(commit(1, 4), 2_000_000), []);
    assert_eq!(log.wake_at(9_000_000), None);
    assert_eq!(released(&log.on_put(Slot(0), PutOutcome::Stored, 3_000_000)), [1]);
    assert_eq!(log.durable_end(), Slot(1));
}

#[test]
fn low_stays_below_what_is_not_folded() {
    let mut log = log();
    for (database, lsn) in [(1, 1), (2, 1), (1, 2)] {
        let now = u64::from(database) * 1_000_000 + lsn * 10_000_000;
        let slot = slot_of(&log.on_append(commit(database, lsn), now)).unwrap();
        log.on_put(slot, PutOutcome::Stored, now + 1);
    }
    assert_eq!(log.low(), Slot(0));
    log.on_folded(DatabaseId::from_bytes([1; 16]), Lsn::new(2).unwrap());
    assert_eq!(log.low(), Slot(1), "database 2 is not folded");
    log.on_folded(DatabaseId::from_bytes([2; 16]), Lsn::new(1).unwrap());
    assert_eq!(log.low(), Slot(3));
}

#[test]
fn a_database_deleted_before_its_commit_has_a_slot_does_not_hold_the_log_back() {
    let mut log = log();
    log.on_append(commit(2, 1), 0);
    log.on_append(commit(1, 1), 1);
    log.on_folded(DatabaseId::from_bytes([1; 16]), Lsn::new(1).unwrap());
    log.on_put(Slot(0), PutOutcome::Stored, 1_000_000);
    log.on_tick(9_000_000);
    log.on_put(Slot(1), PutOutcome::Stored, 9_000_001);
    log.on_folded(DatabaseId::from_bytes([2; 16]), Lsn::new(1).unwrap());
    assert_eq!((log.low(), log.durable_end()), (Slot(2), Slot(2)));
}

fn sized(database: u8, lsn: u64, bytes: usize) -> Commit {
    let mut commit = commit(database, lsn);
    commit.entry.bytes = Bytes::from(vec![5; bytes]).into();
    commit
}

/// The commits that the actions' fragments carry, of one database.
fn lsns_sent(actions: &[Action], database: u8) -> Vec<u64> {
    let mut lsns = Vec::new();
    for action in actions {
        let Action::Put { slot, object } = action else { continue };
        let Ok(fragment::SlotObject::Fragment(sent)) = fragment::decode(object, INC, *slot) else {
            panic!("no fragment in {slot}")
        };
        let runs = sent.runs.iter().filter(|run| run.database == DatabaseId::from_bytes([database; 16]));
        lsns.extend(runs.flat_map(|run| (run.first.get()..).take(run.commits.len())));
    }
    lsns
}

#[test]
fn quiet_databases_are_in_the_next_batch_whatever_one_flooder_has_waiting() {
    let mut log = log();
    let mut flooded = Vec::new();
    let mut slots = 0;
    for lsn in 1..=5_000 {
        let actions = log.on_append(sized(200, lsn, 1_000), 0);
        slots += actions.len() as u64;
        flooded.extend(lsns_sent(&actions, 200));
    }
    assert_eq!(slots, limits::PUTS_IN_FLIGHT_MAX as u64, "the flooder has them all");
    for round in 1..=10 {
        for quiet in 1..100 {
            assert_eq!(log.on_append(sized(quiet, round, 600), 0), []);
        }
        let actions = log.on_put(Slot(round - 1), PutOutcome::Stored, round * 1_000);
        assert_eq!(slot_of(&actions), Some(Slot(slots)));
        slots += 1;
        assert!((1..100).all(|quiet| lsns_sent(&actions, quiet) == [round]));
        flooded.extend(lsns_sent(&actions, 200));
    }
    assert!(flooded.iter().copied().eq(1..=flooded.len() as u64), "the flooder's own leave in order");
}

#[test]
fn what_a_full_batch_leaves_behind_goes_into_the_next_slot() {
    let mut log = log();
    log.on_append(commit(1, 1), 0);
    (2..=200).for_each(|lsn| drop(log.on_append(sized(1, lsn, 1_000), 1)));
    let left = log.queue.ready().unwrap();
    assert!(left.bytes < limits::FRAGMENT_BYTES_TARGET);
    let wake = log.wake_at(1).expect("the rest has a time of its own");
    let actions = log.on_tick(wake);
    assert_eq!(lsns_sent(&actions, 1).last(), Some(&200));
    for slot in (0..3).rev() {
        log.on_put(Slot(slot), PutOutcome::Stored, wake + 1);
    }
    assert!(log.is_drained());
    assert_eq!((log.durable_end(), log.backlog_bytes()), (Slot(3), 0));
}

#[test]
fn a_held_database_wakes_the_log_when_its_bucket_has_filled() {
    let mut log = log();
    log.on_append(sized(1, 1, limits::DATABASE_BURST_BYTES + (1 << 20)), 0);
    assert_eq!(log.on_append(sized(1, 2, 600), 10), []);
    log.on_put(Slot(0), PutOutcome::Stored, 1_000);
    assert!(!log.is_drained());
    let wake = log.wake_at(1_000).unwrap();
    assert!(wake > 1_000);
    assert_eq!(log.on_tick(wake - 1), []);
    assert_eq!(lsns_sent(&log.on_tick(wake), 1), [2]);
    log.on_append(sized(1, 3, limits::DATABASE_BURST_BYTES + (1 << 20)), wake);
    log.on_append(sized(1, 4, 600), wake);
    log.on_fenced();
    assert_eq!(log.wake_at(wake), None);
    assert_eq!(log.on_tick(u64::MAX), []);
}

proptest! {
    #[test]
    fn whatever_the_store_does_low_is_at_most_the_hint_and_order_holds(
        steps in proptest::collection::vec((0u8..4, 0u8..3, 0usize..8), 1..200)
    ) {
        let mut log = log();
        let mut lsns = [0u64; 3];
        let mut acked = [0u64; 3];
        let mut open: Vec<Slot> = Vec::new();
        let mut now = 0;
        for (kind, database, pick) in steps {
            now += 1_500;
            let actions = match kind {
                0 | 1 => {
                    lsns[database as usize] += 1;
                    log.on_append(commit(database, lsns[database as usize]), now)
                }
                2 if !open.is_empty() => {
                    let slot = open.remove(pick % open.len());
                    log.on_put(slot, PutOutcome::Stored, now)
                }
                _ => {
                    if let Some(lsn) = Lsn::new(acked[database as usize]) {
                        log.on_folded(DatabaseId::from_bytes([database; 16]), lsn);
                    }
                    log.on_tick(now)
                }
            };
            for action in actions {
                match action {
                    Action::Put { slot, .. } => open.push(slot),
                    Action::Durable(commits) => for commit in commits {
                        let at = commit.database.as_bytes()[0] as usize;
                        prop_assert_eq!(commit.lsn.get(), acked[at] + 1);
                        acked[at] += 1;
                    },
                    Action::Fenced => prop_assert!(false),
                }
            }
            prop_assert!(log.low() <= log.durable_end());
            prop_assert!(open.iter().all(|slot| *slot >= log.durable_end()));
        }
    }
}

/// What each broken variant does to the log; with the switch off the same steps do nothing of it.
#[cfg(feature = "mutants")]
mod broken {
    use super::*;
    use crate::mutant::turn_on;

    /// Three PUTs in flight, of one commit each, of which the second is stored.
    fn second_of_three_is_stored(mutant: Option<Mutant>) -> (Vec<u64>, Slot) {
        turn_on(mutant);
        let mut log = log();
        let mut actions = Vec::new();
        for lsn in 1..=3 {
            actions.extend(log.on_append(commit(1, lsn), lsn * 1_000_000));
            actions.extend(log.on_tick(lsn * 1_000_000 + 500_000));
        }
        actions.extend(log.on_put(Slot(1), PutOutcome::Stored, 4_000_000));
        turn_on(None);
        (released(&actions), log.durable_end())
    }

    #[test]
    fn acknowledgements_come_early_with_the_switch_and_only_with_it() {
        assert_eq!(second_of_three_is_stored(None), (vec![], Slot(0)));
        assert_eq!(second_of_three_is_stored(Some(Mutant::AcknowledgeOutOfOrder)), (vec![2], Slot(0)));
        assert_eq!(second_of_three_is_stored(Some(Mutant::AcknowledgeBeforeDurable)), (vec![1, 2, 3], Slot(0)));
    }

    #[test]
    fn a_batch_that_moves_leaves_a_gap_and_is_acknowledged_behind_it() {
        let mut log = log();
        log.on_append(commit(1, 1), 0);
        let moved = log.on_put(Slot(0), PutOutcome::Missing, 1_000_000);
        assert_eq!(slot_of(&moved), Some(Slot(1)));
        assert_eq!(released(&log.on_put(Slot(1), PutOutcome::Stored, 2_000_000)), [1]);
        assert_eq!((log.durable_end(), log.backlog_bytes()), (Slot(2), 0));
    }
}
