use super::*;
use crate::fragment::Entry;

const LARGE: usize = limits::INLINE_COMMIT_BYTES_MAX + 1;

fn commit(database: u8, lsn: u64, bytes: usize) -> Commit {
    let entry = Entry {
        database: DatabaseId::from_bytes([database; 16]),
        epoch: 1,
        lsn: Lsn::new(lsn).unwrap(),
        bytes: Bytes::from(vec![7; bytes]).into(),
    };
    Commit { entry, window_micros: 0, home: 0, side: None }
}

struct Rig {
    queue: SideQueue,
    next: u8,
}

impl Rig {
    fn new() -> Self {
        Self { queue: SideQueue::new(IncarnationId::from_bytes([1; 16])), next: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        self.next += 1;
        [self.next; 16]
    }

    /// The LSNs that go on to the log, and the nonce of an upload that begins.
    fn append(&mut self, commit: Commit) -> (Vec<u64>, Option<Nonce>) {
        let nonce = self.nonce();
        seen(self.queue.on_append(commit, || nonce))
    }

    fn uploaded(&mut self, database: u8, nonce: Nonce) -> (Vec<u64>, Option<Nonce>) {
        let next = self.nonce();
        let reference = SideRef { nonce, commit_bytes: LARGE as u32, hash: [8; 16] };
        seen(self.queue.on_uploaded(DatabaseId::from_bytes([database; 16]), reference, || next))
    }
}

fn seen(advance: Advance) -> (Vec<u64>, Option<Nonce>) {
    let lsns = advance.commits.iter().map(|commit| commit.entry.lsn.get()).collect();
    (lsns, advance.upload.map(|upload| upload.nonce))
}

#[test]
fn commits_wait_behind_a_large_one_of_their_own_database_only() {
    let mut rig = Rig::new();
    assert_eq!(rig.append(commit(1, 1, 10)), (vec![1], None));
    let (none, upload) = rig.append(commit(1, 2, LARGE));
    assert!(none.is_empty());
    assert_eq!(rig.append(commit(1, 3, 10)), (vec![], None));
    assert_eq!(rig.append(commit(2, 1, 10)), (vec![1], None), "another database goes on");
    assert_eq!(rig.queue.bytes(), LARGE + 10);
    assert_eq!(rig.uploaded(1, upload.unwrap()), (vec![2, 3], None));
    assert!(rig.queue.is_empty() && rig.queue.bytes() == 0);
    assert_eq!(rig.append(commit(1, 4, 10)), (vec![4], None));
}

#[test]
fn large_commits_of_one_database_go_one_after_the_other() {
    let mut rig = Rig::new();
    let (_, first) = rig.append(commit(1, 1, LARGE));
    assert_eq!(rig.append(commit(1, 2, 5)), (vec![], None));
    assert_eq!(rig.append(commit(1, 3, LARGE)), (vec![], None));
    assert_eq!(rig.append(commit(1, 4, 5)), (vec![], None));
    let (lsns, second) = rig.uploaded(1, first.unwrap());
    assert_eq!(lsns, [1, 2]);
    assert_eq!(rig.uploaded(1, first.unwrap()), (vec![], None), "an answer that comes twice changes nothing");
    assert_eq!(rig.uploaded(1, second.unwrap()), (vec![3, 4], None));
}

#[test]
fn a_reference_is_placed_when_it_is_durable() {
    let mut rig = Rig::new();
    let (_, nonce) = rig.append(commit(1, 1, LARGE));
    rig.uploaded(1, nonce.unwrap());
    let database = DatabaseId::from_bytes([1; 16]);
    let durable = |lsn| Acknowledged { database, epoch: 1, lsn: Lsn::new(lsn).unwrap(), slot: Slot(7), home: 0 };
    assert_eq!(rig.queue.on_durable(&[durable(2)]), []);
    assert_eq!(rig.queue.on_durable(&[durable(1)]), [(Slot(7), nonce.unwrap())]);
    assert_eq!(rig.queue.on_durable(&[durable(1)]), []);
}

#[test]
fn a_deleted_database_does_not_wait() {
    let mut rig = Rig::new();
    let (_, nonce) = rig.append(commit(1, 1, LARGE));
    rig.append(commit(1, 2, 5));
    let database = DatabaseId::from_bytes([1; 16]);
    let after = seen(rig.queue.on_folded(database, Lsn::new(2).unwrap(), || [99; 16]));
    assert_eq!(after, (vec![], None));
    assert!(rig.queue.is_empty() && rig.queue.bytes() == 0);
    assert_eq!(rig.uploaded(1, nonce.unwrap()), (vec![], None));
}

#[test]
fn a_fenced_queue_releases_nothing() {
    let mut rig = Rig::new();
    let (_, nonce) = rig.append(commit(1, 1, LARGE));
    rig.queue.on_fenced();
    assert_eq!(rig.uploaded(1, nonce.unwrap()), (vec![], None));
    assert_eq!(rig.append(commit(2, 1, 5)), (vec![], None));
    assert!(rig.queue.is_empty());
}

#[test]
fn the_bytes_of_a_commit_are_with_its_upload_only_and_still_count() {
    let mut rig = Rig::new();
    let large = commit(1, 1, LARGE);
    let Content::Inline(bytes) = large.entry.bytes.clone() else { panic!() };
    let upload = rig.queue.on_append(large, || [9; 16]).upload.unwrap();
    assert_eq!((upload.commit.len(), upload.id.lsn, rig.queue.bytes()), (LARGE, Lsn::FIRST, LARGE));
    drop(upload);
    assert!(bytes.is_unique(), "nobody else keeps them");
    let reference = SideRef { nonce: [9; 16], commit_bytes: LARGE as u32, hash: [8; 16] };
    let advance = rig.queue.on_uploaded(DatabaseId::from_bytes([1; 16]), reference, || [10; 16]);
    assert_eq!(advance.commits[0].entry.bytes, Content::Side(reference));
    assert_eq!(rig.queue.bytes(), 0);
}

#[test]
fn a_side_object_that_was_made_already_is_stored_as_it_is_and_under_its_own_nonce() {
    let mut rig = Rig::new();
    let made = side::Made { nonce: [99; 16], object: "made".into() };
    let advance = rig.queue.on_append(Commit { side: Some(made), ..commit(1, 1, LARGE) }, || panic!("it has one"));
    let upload = advance.upload.expect("an upload");
    assert_eq!((upload.nonce, upload.object, upload.commit.len()), ([99; 16], Some("made".into()), LARGE));
    assert_eq!(rig.uploaded(1, [99; 16]), (vec![1], None));
}
