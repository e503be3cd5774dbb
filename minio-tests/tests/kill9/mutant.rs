//! A suite that stays green against a broken server is broken: here the bucket loses one fragment, and the
//! oracle must say which transaction is gone.

use minio_tests::bucket::Bucket;
use minio_tests::hrana::Outcome;
use minio_tests::ledger::Ledger;
use minio_tests::rows;
use minio_tests::shoal::Shoal;
use walstore::store::{DirectoryStore, Key, Store};

/// Where the fragments are: `w/<hash>/<incarnation>/<slot>`.
const FRAGMENTS: &str = "w/";
const WRITES: i64 = 3;

#[test]
fn a_lost_fragment_is_noticed_as_a_lost_transaction() {
    let bucket = Bucket::directory();
    let caches = tempfile::tempdir().expect("a temporary directory");
    let process = Shoal::on(&bucket, &caches.path().join("one")).with(&["--lease", "1s"]).start();
    process.create_database("app");
    let database = process.database("app");
    rows::create(&database);
    let mut ledger = Ledger::default();
    for id in 1..=WRITES {
        let (sql, values) = rows::insert(id, 0..1, 1);
        ledger.begin(id, 1);
        ledger.send(id);
        ledger.answer(id, Outcome::of(&database.execute(&sql, &values)));
    }
    process.kill9();
    lose_the_newest_fragment(&bucket);

    let process = Shoal::on(&bucket, &caches.path().join("two")).start();
    let violations = ledger.violations(&rows::found(&process.database("app")));
    assert_eq!(violations, [format!("transaction {WRITES} of 1 rows was acknowledged and is lost")]);
    process.terminate();
}

fn lose_the_newest_fragment(bucket: &Bucket) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = DirectoryStore::open(&bucket.as_directory()).await.expect("opens");
        let keys = store.list(FRAGMENTS, None, 1000).await.expect("lists");
        let slot = |key: &&Key| key.as_str().rsplit('/').next().map(str::to_owned);
        let newest = keys.iter().max_by_key(slot).expect("a fragment");
        store.delete(newest).await.expect("deletes");
    });
}
