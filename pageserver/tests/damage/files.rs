//! Damage that a directory store notices by itself: files that are cut short or go on too long. It must be the same as
//! damage that the object's own checksum finds: of this object, and of nothing else.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pageserver::verify::Options;
use tempfile::TempDir;
use walstore::life::Stores;
use walstore::register::{Patience, RecordError};
use walstore::seal::{self, SealError};
use walstore::store::{Condition, DirectoryStore, Key, Store};

use crate::bucket::{Bucket, Kind};
use crate::reader;
use crate::witness::verify;

/// What becomes of a file.
#[derive(Clone, Copy, Debug)]
enum Cut {
    ToNothing,
    /// No object of Shoal is so short.
    ToThirtyBytes,
    OneByteTooMany,
}

impl Cut {
    const ALL: [Self; 3] = [Self::ToNothing, Self::ToThirtyBytes, Self::OneByteTooMany];

    fn apply(self, file: &Path) {
        let whole = fs::metadata(file).unwrap().len();
        let length = match self {
            Self::ToNothing => 0,
            Self::ToThirtyBytes => 30,
            Self::OneByteTooMany => whole + 1,
        };
        assert_ne!(length, whole);
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_damage_of_its_object_and_of_nothing_else() {
    let mut tried = Vec::new();
    for bucket in crate::buckets().await {
        let sound = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(sound.path()).await.unwrap();
        for (key, object) in &bucket.objects {
            store.put(key, object.clone(), &Condition::None).await.unwrap();
        }
        for kind in bucket.kinds() {
            // The later buckets are there for what the first one lacks.
            if tried.contains(&kind) {
                continue;
            }
            tried.push(kind);
            for key in of_kind(&bucket, kind) {
                for cut in Cut::ALL {
                    let copy = copy_of(sound.path());
                    cut.apply(&copy.path().join(format!("objects/{key}@")));
                    let store = DirectoryStore::open(copy.path()).await.unwrap();
                    check(&bucket, store, key, &format!("{cut:?} of {key}")).await;
                }
            }
        }
    }
    tried.sort();
    assert_eq!(tried, Kind::ALL);
}

/// One of them, and one that whoever seals the open log meets.
fn of_kind(bucket: &Bucket, kind: Kind) -> impl Iterator<Item = &Key> {
    let mut all = bucket.objects.keys().filter(move |key| bucket.kind_of(key) == kind);
    let above_hint = all.clone().find(|key| bucket.is_above_hint(key));
    all.next().into_iter().chain(above_hint)
}

async fn check(bucket: &Bucket, store: DirectoryStore, key: &Key, context: &str) {
    let (found, summary) = verify(&store, &bucket.seam, &Options::default()).await;
    assert!(found.damages.iter().any(|damage| damage.key == key.as_str()), "{context}: {:?}", found.damages);
    assert_eq!(summary.damages, found.damages.len() as u64, "{context}");
    let mut served = 0;
    for database in &bucket.databases {
        match reader::read(&store, &bucket.seam, &database.name).await {
            Ok(read) => {
                assert_eq!(read, database.content, "{context}: {}", database.name);
                served += 1;
            }
            Err(error) => assert!(error.contains(&format!("corrupt object {key}")), "{context}: {error}"),
        }
    }
    // Nearly all of them are in the log of the first node.
    let is_shared = matches!(bucket.kind_of(key), Kind::Slot | Kind::Tombstone | Kind::Incarnation);
    assert!(served > 0 || is_shared || bucket.databases.len() == 1, "{context}: one object hides all databases");
    for moment in bucket.moments.iter().filter(|moment| Bucket::concerns(key, moment.database, None)).step_by(5) {
        let context = format!("{context}: {} after commit {}", moment.database, moment.lsn);
        match reader::read_past(&store, &bucket.seam, moment.database, moment.lsn).await {
            Ok(read) => assert_eq!(read.as_ref(), Some(&moment.content), "{context}"),
            Err(error) => assert!(error.contains(&format!("corrupt object {key}")), "{context}: {error}"),
        }
    }
    let Some(open) = &bucket.open else { return };
    let stores = Stores::one(std::sync::Arc::new(store));
    let patience = Patience::for_duration(&bucket.seam, Duration::from_secs(1));
    match seal::seal(&stores, &bucket.seam, open.id, patience).await {
        Ok(_) => assert!(!bucket.is_above_hint(key), "{context}: sealed over damage"),
        Err(SealError::Record(RecordError::Corrupt(corrupt))) => assert_eq!(corrupt.key, key.as_str(), "{context}"),
        Err(error) => panic!("{context}: {error:?}"),
    }
}

fn copy_of(store: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for directory in ["locks", "objects", "tmp"] {
        copy_tree(&store.join(directory), &copy.path().join(directory));
    }
    copy
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
