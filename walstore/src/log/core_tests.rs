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
    Commit { entry, window_micros: 0, home: 0 }
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

#[test]
fn a_crowd_of_writers_shares_puts() {
    // 64 clients in a closed loop on a store that takes 28 ms: each sends its next commit 100 µs after the
    // one before it in the crowd, once it was acknowledged.
    let mut log = log();
    let mut now = 0;
    let mut lsn = 0;
    let mut arrivals: VecDeque<u64> = (0..64).map(|n| n * 100).collect();
    let mut puts: BTreeMap<u64, Slot> = BTreeMap::new();
    let mut put_count = 0;
    let mut acknowledged = 0;
    while acknowledged < 6_400 {
        let wake = log.wake_at(now).unwrap_or(u64::MAX);
        let answer = puts.keys().next().copied().unwrap_or(u64::MAX);
        let arrival = arrivals.front().copied().unwrap_or(u64::MAX);
        now = wake.min(answer).min(arrival);
        let actions = if now == arrival {
            arrivals.pop_front();
            lsn += 1;
            log.on_append(commit(1, lsn), now)
        } else if now == answer {
            let slot = puts.remove(&answer).unwrap();
            log.on_put(slot, PutOutcome::Stored, now)
        } else {
            log.on_tick(now)
        };
        let count = released(&actions).len() as u64;
        acknowledged += count;
        let from = arrivals.back().copied().unwrap_or(0).max(now);
        arrivals.extend((1..=count).map(|n| from + n * 100));
        if let Some(slot) = slot_of(&actions) {
            put_count += 1;
            puts.insert(now + 28_000 + put_count % 3, slot);
        }
    }
    let commits_per_put = acknowledged / put_count;
    assert!(commits_per_put >= 50, "{commits_per_put} commits per PUT");
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
