//! One zombie, step by step: a PUT of its log hangs at the store, it is stopped, another node seals its log and
//! takes over, the PUT arrives, and the zombie comes back.
//!
//! A store that forgets its conditions then writes over the tombstone, and the zombie acknowledges what nobody
//! has. The oracle must say so.

use minio_tests::bucket::Bucket;
use minio_tests::clock;
use minio_tests::fleet::Fleet;
use minio_tests::hrana::Outcome;
use minio_tests::ledger::Ledger;
use minio_tests::limits::RECOVERY;
use minio_tests::rows;

/// The class of the keys of fragments.
const FRAGMENTS: &str = "w";

#[test]
fn a_put_that_arrives_after_the_tombstone_is_not_acknowledged() {
    let (violations, outcome) = sleep_through_a_takeover(false);
    assert_eq!(violations, Vec::<String>::new());
    assert!(matches!(outcome, Outcome::Unknown(_)), "it was sent, and its fate was not the sender's: {outcome:?}");
}

#[test]
fn a_store_that_lets_a_zombie_write_over_a_tombstone_is_noticed() {
    let (violations, outcome) = sleep_through_a_takeover(true);
    assert_eq!(outcome, Outcome::Acknowledged);
    assert_eq!(violations, ["transaction 1 of 1 rows was acknowledged and is lost"]);
}

/// What the oracle says, and what the zombie's client was told.
fn sleep_through_a_takeover(ignores_conditions: bool) -> (Vec<String>, Outcome) {
    let fleet = Fleet::pair(Bucket::emulator());
    let (zombie, heir) = (fleet.process(0), fleet.process(1));
    zombie.create_database("app");
    let (at, faults) = (zombie.database("app"), fleet.bucket.as_emulator().faults());
    rows::create(&at);
    let (sql, values) = rows::insert(1, 0..1, 1);
    let mut ledger = Ledger::default();
    ledger.begin(1, 1);
    ledger.send(1);
    let hold = faults.hold(FRAGMENTS);
    let outcome = std::thread::scope(|scope| {
        let insert = scope.spawn(|| at.execute(&sql, &values));
        let held = clock::poll(RECOVERY, || (!faults.hits().is_empty()).then_some(()));
        held.expect("the fragment is on its way");
        zombie.pause();
        assert!(rows::found(&heir.database("app")).is_empty(), "the heir has taken over");
        faults.ignore_conditions(ignores_conditions);
        hold.release();
        zombie.resume();
        Outcome::of(&insert.join().expect("a client panicked"))
    });
    ledger.answer(1, outcome.clone());
    faults.ignore_conditions(false);
    (ledger.violations(&rows::found(&heir.database("app"))), outcome)
}
