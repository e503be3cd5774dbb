//! `shoal verify` as whoever runs it sees it: what is damaged is named, by its key; and 0, 1 and 2 tell a sound bucket,
//! a damaged one, and one that could not be looked at.

use std::collections::BTreeSet;
use std::path::Path;

use minio_tests::bucket::Bucket;
use minio_tests::shoal::{Shoal, ShoalProcess};
use minio_tests::stream::Stream;
use minio_tests::verify::{Verified, verify, verify_with};
use serde_json::Value as Json;
use walstore::id::Slot;
use walstore::keys::{self, Object};
use walstore::store::Key;

use crate::cache;

const SOUND: Option<i32> = Some(0);
const DAMAGED: Option<i32> = Some(1);
const NOT_CHECKED: Option<i32> = Some(2);

/// What does not fit a head, so that it is in a pack once it is folded.
const LARGE_ROW: &str = "INSERT INTO t VALUES (randomblob(100000))";
const SMALL_ROW: &str = "INSERT INTO t VALUES ('small')";

fn start(bucket: &Bucket, cache: &Path) -> ShoalProcess {
    Shoal::on(bucket, cache).with(&["--retention", "0s"]).start()
}

/// A database with one row, which it can be told to insert.
fn create(node: &ShoalProcess, name: &str, row: &str) {
    node.create_database(name);
    for sql in ["CREATE TABLE t (x)", row] {
        node.database(name).execute(sql, &[]).unwrap_or_else(|failure| panic!("{sql}: {failure}"));
    }
}

/// A bucket at which nobody is at work: `app` is in a pack, and `blog` in a log.
fn bucket_of_two() -> Bucket {
    let bucket = Bucket::directory();
    let (_directory, cache) = cache();
    let node = start(&bucket, &cache);
    create(&node, "app", LARGE_ROW);
    create(&node, "blog", SMALL_ROW);
    node.addresses().release("app").expect("released");
    node.terminate();
    bucket
}

fn packs(bucket: &Bucket) -> Vec<String> {
    bucket.keys().into_iter().filter(|key| key.contains("/p/")).collect()
}

/// Its last line is the error; it holds `phrase`.
#[track_caller]
fn assert_not_checked(verified: &Verified, phrase: &str) {
    assert_eq!(verified.code, NOT_CHECKED, "{verified:?}");
    assert!(verified.stderr.contains(phrase), "`{phrase}` is not in: {}", verified.stderr);
    assert!(!verified.stderr.contains("panicked") && verified.stdout.is_empty(), "{verified:?}");
}

#[test]
fn nothing_is_wrong_with_a_sound_bucket() {
    let bucket = bucket_of_two();
    let text = verify(&bucket, &[]);
    assert_eq!((text.code, text.stderr.as_str()), (SOUND, ""), "{text:?}");
    assert!(text.stdout.starts_with("checked 2 databases, 1 logs, "), "{text:?}");
    assert_eq!(text.stdout.lines().last(), Some("nothing is wrong"), "{text:?}");
    let found = verify(&bucket, &["--output", "json"]).json();
    assert_eq!((&found["is_sound"], &found["damages"]), (&true.into(), &Json::Array(vec![])), "{found}");
    // The table and the row of `blog`, in the log: what is folded is no commit any more, as no past is kept.
    let counts = ["databases", "commits", "unsettled"].map(|count| found[count].as_u64());
    assert_eq!(counts, [Some(2), Some(2), Some(0)], "{found}");
}

#[test]
fn a_flipped_byte_of_a_pack_is_damage_of_its_database_and_of_no_other() {
    let bucket = bucket_of_two();
    let key = packs(&bucket).pop().expect("a pack");
    let file = bucket.file_of(&key);
    let mut bytes = std::fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("a file that can be written");
    for of in [&[][..], &["app"], &["blog", "app"], &["--no-integrity-check"]] {
        let verified = verify(&bucket, of);
        assert_eq!(verified.code, DAMAGED, "{of:?}: {verified:?}");
        let damages = verified.lines("damaged: ");
        let is_named = |line: &&str| line.contains(&format!(": {key}: ")) && line.ends_with(" (database `app`)");
        assert!(!damages.is_empty() && damages.iter().all(is_named), "{of:?}: {verified:?}");
        assert!(verified.stdout.lines().last().is_some_and(|line| line.contains(" damage")), "{verified:?}");
    }
    let found = verify(&bucket, &["--output", "json"]).json();
    assert_eq!((&found["is_sound"], &found["damages"][0]["key"]), (&false.into(), &key.as_str().into()), "{found}");
    let other = verify(&bucket, &["blog"]);
    assert_eq!(other.code, SOUND, "{other:?}");
    assert!(other.stdout.starts_with("checked 1 databases"), "{other:?}");
}

/// SQLite lets a client change what LIKE means after an index was made of it, and insert what a CHECK forbids.
#[test]
fn what_sqlite_finds_wrong_is_damage_although_every_checksum_is_right() {
    let bucket = Bucket::directory();
    let (_directory, cache) = cache();
    let node = start(&bucket, &cache);
    create(&node, "app", SMALL_ROW);
    node.create_database("odd");
    let database = node.database("odd");
    let mut stream = Stream::new(&database);
    for sql in [
        "CREATE TABLE t (x TEXT CHECK (x <> ''))",
        "CREATE INDEX by_like ON t (x LIKE 'A%')",
        "PRAGMA case_sensitive_like = ON",
        "PRAGMA ignore_check_constraints = ON",
    ] {
        stream.execute(sql, &[]).unwrap_or_else(|failure| panic!("{sql}: {failure}"));
    }
    stream.finish("INSERT INTO t VALUES ('a'), ('')", &[]).expect("inserted");
    // In the log, and folded.
    for folds in [false, true] {
        if folds {
            node.addresses().release("odd").expect("released");
        }
        let verified = verify(&bucket, &[]);
        assert_eq!(verified.code, DAMAGED, "{verified:?}");
        let damages = verified.lines("damaged: ");
        for what in ["row 1 missing from index by_like", "CHECK constraint failed in t"] {
            let told = format!("/head: integrity_check: {what} (database `odd`)");
            assert!(damages.iter().any(|line| line.ends_with(&told)), "`{told}` is missing in {verified:?}");
        }
        assert!(damages.iter().all(|line| line.ends_with(" (database `odd`)")), "{verified:?}");
        assert_eq!(verify(&bucket, &["--no-integrity-check"]).code, SOUND, "each checksum is right");
    }
    node.terminate();
}

/// Keys that nothing refers to: such as nobody can come to need, and such as may belong to something in flight.
struct Planted {
    dead: BTreeSet<String>,
    waiting: BTreeSet<String>,
}

/// Plants beside a node that is at work: whoever made the only pack has given its database up since, which began an
/// epoch, and this node has taken it, which began another.
fn plant(bucket: &Bucket, former_log: &[(Key, Object)]) -> Planted {
    let pack = packs(bucket).pop().expect("a pack");
    let (place, id) = pack.rsplit_once('/').expect("a key of several parts");
    let epoch = u64::from_str_radix(&id[..16], 16).expect("an epoch");
    let pack_of = |epoch: u64| Key::new(format!("{place}/{epoch:016x}-{:08x}-{:016x}", 9, 1));
    let slots = former_log.iter().filter_map(|(_, object)| match object {
        Object::Fragment(log, slot) => Some((*slot, *log)),
        _ => None,
    });
    // The tombstone in which that log ends.
    let (end, former) = slots.max().expect("a slot");
    let living = log_objects(bucket).into_iter().find_map(|(_, object)| match object {
        Object::Incarnation(log) if log != former => Some(log),
        _ => None,
    });
    let dead = [pack_of(epoch), keys::fragment(former, Slot(end.0 + 2))];
    let waiting = [pack_of(epoch + 2), keys::side(living.expect("the node's record"), [5; 16])];
    for key in dead.iter().chain(&waiting) {
        bucket.plant(key, b"what it holds does not matter");
    }
    let texts = |keys: [Key; 2]| keys.iter().map(ToString::to_string).collect();
    Planted { dead: texts(dead), waiting: texts(waiting) }
}

fn log_objects(bucket: &Bucket) -> Vec<(Key, Object)> {
    let keys = bucket.keys().into_iter().map(Key::new);
    keys.filter_map(|key| keys::parse(&key).map(|object| (key, object))).collect()
}

/// The keys of orphans of which a report says this.
fn orphans(found: &Json, says: (&str, bool)) -> BTreeSet<String> {
    let list = found["orphans"]["list"].as_array().expect("a list");
    let told = list.iter().filter(|orphan| orphan[says.0] == says.1);
    told.map(|orphan| orphan["key"].as_str().expect("a key").to_owned()).collect()
}

#[test]
fn only_what_is_provably_dead_is_deleted_while_a_node_is_at_work() {
    let bucket = Bucket::directory();
    let (_directory, cache) = cache();
    let former = start(&bucket, &cache.join("former"));
    create(&former, "app", LARGE_ROW);
    former.addresses().release("app").expect("released");
    former.terminate();
    let former_log = log_objects(&bucket);
    let node = start(&bucket, &cache.join("node"));
    node.database("app").execute(SMALL_ROW, &[]).expect("it owns the database from now on");
    let planted = plant(&bucket, &former_log);
    let before: BTreeSet<String> = bucket.keys().into_iter().collect();

    let found = verify(&bucket, &["--output", "json"]);
    assert_eq!(found.code, SOUND, "orphans are no damage: {found:?}");
    let found = found.json();
    assert_eq!(orphans(&found, ("is_dead", true)), planted.dead, "{found}");
    assert_eq!(orphans(&found, ("is_dead", false)), planted.waiting, "{found}");
    assert_eq!(bucket.keys().into_iter().collect::<BTreeSet<_>>(), before, "it was not told to delete anything");

    let deleted = verify(&bucket, &["--delete-dead", "--output", "json"]);
    assert_eq!(deleted.code, SOUND, "{deleted:?}");
    assert_eq!(orphans(&deleted.json(), ("is_deleted", true)), planted.dead, "{deleted:?}");
    let after: BTreeSet<String> = bucket.keys().into_iter().collect();
    assert_eq!(&before - &after, planted.dead);

    let again = verify(&bucket, &["--delete-dead"]);
    assert_eq!(again.code, SOUND, "{again:?}");
    let told: BTreeSet<&str> = again.lines("orphan: ").iter().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(told, planted.waiting.iter().map(String::as_str).collect(), "{again:?}");
    assert!(again.lines("deleted: ").is_empty() && again.lines("dead: ").is_empty(), "{again:?}");
    let rows = node.database("app").execute("SELECT count(*), max(length(x)) FROM t", &[]).expect("it goes on");
    assert_eq!(rows, [[2.into(), 100_000.into()]]);
    node.terminate();
}

#[test]
fn a_check_that_cannot_be_made_is_no_damage_and_says_why() {
    let empty = Bucket::directory();
    let directory = empty.as_directory();
    let missing = directory.join("missing");
    let missing = missing.to_str().expect("a plain path");
    assert_not_checked(&verify_with(&["--store", &format!("file://{missing}")], None), missing);
    assert_not_checked(&verify(&empty, &[]), directory.to_str().expect("a plain path"));
    assert!(std::fs::read_dir(&directory).expect("it is there").next().is_none(), "whoever only looks makes nothing");
    assert_not_checked(&verify_with(&["--store", "ftp://bucket"], None), "`ftp://bucket` does not name a store");
    assert_not_checked(&verify_with(&[], None), "--store <URL>");

    let emulator = Bucket::emulator();
    let url = emulator.url_of("no-such-bucket");
    assert_not_checked(&verify_with(&["--store", &url], emulator.credentials()), "no-such-bucket");
    assert_not_checked(&verify(&emulator, &[]), "holds nothing of Shoal's");

    let bucket = bucket_of_two();
    assert_not_checked(&verify(&bucket, &["nobody"]), "there is no database `nobody`");
    assert_not_checked(&verify(&bucket, &["No Name"]), "the database name `No Name` contains");
    assert_not_checked(&verify(&bucket, &["--temp-dir", missing]), "cannot make a temporary file");
}
