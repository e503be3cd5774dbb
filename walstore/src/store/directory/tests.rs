//! What only a directory has: a disk that stays, crashes that leave files, and other people's hands.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::store::ETag;

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn create(store: &DirectoryStore, key: &str, text: &'static str) -> Put {
    store.put(&Key::new(key), body(text), &Condition::Absent).await.unwrap()
}

async fn content(store: &DirectoryStore, key: &str) -> Option<Bytes> {
    store.get(&Key::new(key)).await.unwrap().map(|object| object.bytes)
}

fn tmp_entries(root: &Path) -> usize {
    std::fs::read_dir(root.join("tmp")).unwrap().count()
}

#[tokio::test]
async fn objects_survive_a_reopening_with_their_etags() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    let created = create(&store, "w/1/slot", "a").await;
    drop(store);
    let store = DirectoryStore::open(root.path()).await.unwrap();
    let object = store.get(&Key::new("w/1/slot")).await.unwrap().unwrap();
    assert_eq!(object.bytes, body("a"));
    assert_eq!(Put::Done(object.etag), created);
    assert_eq!(create(&store, "w/1/slot", "b").await, Put::Refused);
}

#[tokio::test]
async fn an_answered_write_leaves_one_link_and_nothing_in_tmp() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    let Put::Done(etag) = create(&store, "head", "a").await else { panic!("refused") };
    assert_eq!(create(&store, "head", "b").await, Put::Refused);
    let stale = Condition::Match(ETag::of_content(b"other"));
    assert_eq!(store.put(&Key::new("head"), body("c"), &stale).await.unwrap(), Put::Refused);
    let cas = Condition::Match(etag);
    assert!(matches!(store.put(&Key::new("head"), body("d"), &cas).await, Ok(Put::Done(_))));
    store.put(&Key::new("head"), body("e"), &Condition::None).await.unwrap();
    let file = std::fs::metadata(root.path().join("objects/head@")).unwrap();
    assert_eq!(file.nlink(), 1);
    assert_eq!(std::fs::read_dir(root.path().join("tmp/0")).unwrap().count(), 0);
    drop(store);
    assert_eq!(tmp_entries(root.path()), 0);
}

/// The state of a crash between the link and the sync of the directory: the object has two links.
#[tokio::test]
async fn leftovers_of_a_crashed_process_are_swept_and_a_living_ones_are_not() {
    let root = tempfile::tempdir().unwrap();
    let living = DirectoryStore::open(root.path()).await.unwrap();
    create(&living, "k", "whole").await;
    let (object, tmp) = (root.path().join("objects/k@"), root.path().join("tmp"));
    std::fs::write(tmp.join("0/17"), "being written").unwrap();
    std::fs::create_dir(tmp.join("crashed")).unwrap();
    std::fs::write(tmp.join("crashed/4"), "torn").unwrap();
    std::fs::hard_link(&object, tmp.join("crashed/5")).unwrap();
    let next = DirectoryStore::open(root.path()).await.unwrap();
    assert!(!tmp.join("crashed").exists());
    assert!(tmp.join("0/17").exists());
    assert_eq!(content(&next, "k").await, Some(body("whole")));
    assert_eq!(std::fs::metadata(&object).unwrap().nlink(), 1);
    drop(living);
}

#[tokio::test]
async fn an_object_with_a_second_link_is_readable() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    create(&store, "a/k", "x").await;
    std::fs::hard_link(root.path().join("objects/a/k@"), root.path().join("tmp/0/9")).unwrap();
    assert_eq!(content(&store, "a/k").await, Some(body("x")));
    assert_eq!(create(&store, "a/k", "y").await, Put::Refused);
}

#[tokio::test]
async fn a_missing_directory_is_named_and_only_create_makes_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("deep/store");
    let error = DirectoryStore::open(&path).await.err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Missing);
    let expected = format!("file://{}: there is no such directory", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(!path.exists());
    let store = DirectoryStore::create(&path).await.unwrap();
    create(&store, "k", "x").await;
    drop(store);
    let store = DirectoryStore::create(&path).await.unwrap();
    assert_eq!(content(&store, "k").await, Some(body("x")));
    assert_eq!(store.describe(), format!("file://{}", path.display()));
}

#[tokio::test]
async fn a_file_or_a_directory_of_somebody_else_is_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("letter.txt"), "dear").unwrap();
    let error = DirectoryStore::open(root.path()).await.err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    assert!(error.message.contains("letter.txt"), "{error}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    let error = DirectoryStore::open(root.path().join("letter.txt")).await.err().unwrap();
    assert!(error.message.contains("not a directory"), "{error}");
}

#[tokio::test]
async fn whoever_wants_a_store_that_is_there_makes_none() {
    let root = tempfile::tempdir().unwrap();
    let error = DirectoryStore::open_existing(root.path()).await.err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Missing);
    assert!(error.message.contains("no store of Shoal's"), "{error}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    create(&DirectoryStore::open(root.path()).await.unwrap(), "k", "x").await;
    let store = DirectoryStore::open_existing(root.path()).await.unwrap();
    assert_eq!(content(&store, "k").await, Some(body("x")));
}

#[tokio::test]
async fn a_store_that_is_deleted_under_way_is_missing_and_not_empty() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    create(&store, "k", "x").await;
    std::fs::remove_dir_all(root.path()).unwrap();
    let error = store.get(&Key::new("k")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Missing);
    let write = store.put(&Key::new("k"), body("x"), &Condition::Absent).await;
    assert!(write.is_err());
}

#[tokio::test]
async fn a_damaged_file_is_damage_of_this_object_and_never_an_object() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    let Put::Done(etag) = create(&store, "k", "content").await else { panic!("refused") };
    create(&store, "other", "x").await;
    let (key, file) = (Key::new("k"), root.path().join("objects/k@"));
    let whole = std::fs::read(&file).unwrap();
    let damaged = [0, 5, whole.len() - 1].map(|length| whole[..length].to_vec());
    for bytes in damaged.into_iter().chain([[&whole[..], b"\0"].concat()]) {
        std::fs::write(&file, &bytes).unwrap();
        for error in [store.get(&key).await.unwrap_err(), store.get_range(&key, 0..3).await.unwrap_err()] {
            assert_eq!((error.kind, error.key.as_str()), (StoreErrorKind::Corrupt, "k"), "{}: {error}", bytes.len());
        }
        let swap = store.put(&key, body("new"), &Condition::Match(etag.clone())).await;
        assert_eq!(swap.unwrap(), Put::Refused, "a damaged file is no version of anything");
        assert_eq!(create(&store, "k", "new").await, Put::Refused);
        assert_eq!(content(&store, "other").await, Some(body("x")));
        assert_eq!(store.list("", None, 10).await.unwrap(), ["k", "other"].map(Key::new));
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(content(&store, "k").await, Some(body("content")));
    std::fs::write(&file, "").unwrap();
    store.put(&key, body("mended"), &Condition::None).await.unwrap();
    assert_eq!(content(&store, "k").await, Some(body("mended")));
}

#[tokio::test]
async fn a_key_that_the_file_system_cannot_name_is_refused_with_the_reason() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    let key = Key::new("k".repeat(300));
    let error = store.put(&key, body("x"), &Condition::Absent).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    assert!(error.message.contains("cannot hold such a key"), "{error}");
}

#[tokio::test]
async fn a_prefix_that_climbs_out_of_the_store_finds_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path().to_owned()).await.unwrap();
    create(&store, "a/b", "x").await;
    for prefix in ["../", "a/../", "/", "//", "../tmp/", "a//"] {
        assert_eq!(store.list(prefix, None, 10).await.unwrap(), [], "{prefix}");
    }
}

#[tokio::test]
async fn files_that_are_not_keys_are_not_listed() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    create(&store, "a/b", "x").await;
    std::fs::write(root.path().join("objects/a/editor~@"), "").unwrap();
    std::fs::write(root.path().join("objects/a/README"), "").unwrap();
    assert_eq!(store.list("", None, 10).await.unwrap(), [Key::new("a/b")]);
}

/// The conformance suite leaves this out, since not every store can do it.
#[tokio::test]
async fn a_key_may_also_be_the_directory_of_another() {
    let root = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(root.path()).await.unwrap();
    let keys = ["a", "a-b", "a.c", "a/b", "a/b/c", "a0"];
    for key in keys.iter().rev() {
        create(&store, key, "x").await;
    }
    assert_eq!(store.list("a", None, 10).await.unwrap(), keys.map(Key::new));
    assert_eq!(store.list("", Some("a"), 2).await.unwrap(), ["a-b", "a.c"].map(Key::new));
    store.delete(&Key::new("a")).await.unwrap();
    assert_eq!(content(&store, "a/b").await, Some(body("x")));
}
