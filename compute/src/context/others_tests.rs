//! Many databases of one dead node, wanted at once, in virtual time and with every request counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use tokio::time::Instant;
use walstore::id::PutId;
use walstore::register::Swap;
use walstore::seam::{Clock, Random};
use walstore::store::{CountedStore, MemoryStore, Op};

use super::*;

const ID: IncarnationId = IncarnationId::from_bytes([7; 16]);
const LEASE: Duration = Duration::from_millis(900);
const WAITERS: usize = 50;

struct Virtual {
    start: Instant,
    fills: AtomicU64,
}

impl Clock for Virtual {
    fn wall_micros(&self) -> u64 {
        self.boot_micros()
    }

    fn boot_micros(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

impl Random for Virtual {
    fn fill(&self, buffer: &mut [u8]) {
        let fill = self.fills.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        buffer.iter_mut().zip(fill.iter().cycle()).for_each(|(byte, filling)| *byte = *filling);
    }
}

struct Rig {
    store: Arc<CountedStore<MemoryStore>>,
    seam: Seam,
    others: Arc<Others>,
    record: Versioned<IncarnationRecord>,
}

impl Rig {
    /// One other incarnation, whose record was written a moment ago.
    async fn new() -> Self {
        let virtual_time = Arc::new(Virtual { start: Instant::now(), fills: AtomicU64::new(1) });
        let spawn = Arc::new(tokio::runtime::Handle::current());
        let seam = Seam::new(virtual_time.clone(), virtual_time, spawn);
        let store = Arc::new(CountedStore::new(MemoryStore::new()));
        let record = IncarnationRecord::new(ID, PutId::random(&seam), LEASE.as_micros() as u64, String::new());
        let created = register::create(&*store, &seam, &keys::incarnation(ID), record, Patience::endless()).await;
        let record = created.unwrap().found().unwrap();
        let others = Arc::new(Others::new(Stores::one(store.clone()), seam.clone()));
        store.take();
        Self { store, seam, others, record }
    }

    async fn renew(&mut self) {
        let next = self.record.value.successor(PutId::random(&self.seam));
        let key = keys::incarnation(ID);
        let swap = register::replace(&*self.store, &self.seam, &key, &self.record.etag, next, Patience::endless());
        let Swap::Won(renewed) = swap.await.unwrap() else { panic!("nobody else has written it") };
        self.record = renewed;
    }

    fn requests(&self, op: Op, class: &str) -> u64 {
        self.store.snapshot().get(&(op, class.to_owned())).map_or(0, |spent| spent.requests)
    }

    /// Watches until it is over, as whoever opens a database does.
    async fn wait(&self) -> OwnerState {
        wait(&self.others, &self.seam).await
    }
}

async fn wait(others: &Others, seam: &Seam) -> OwnerState {
    loop {
        let probe = others.probe(ID).await.unwrap();
        match probe.state {
            OwnerState::Alive { .. } => seam.sleep(probe.ask_again).await,
            state => return state,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_wait_one_watches_and_one_seals() {
    let rig = Rig::new().await;
    let mut waiters = JoinSet::new();
    for number in 0..WAITERS {
        let (others, seam) = (rig.others.clone(), rig.seam.clone());
        waiters.spawn(async move {
            seam.sleep(Duration::from_millis(number as u64)).await;
            // Those that come last may find it done already.
            if wait(&others, &seam).await == OwnerState::LeaseOver {
                others.seal(ID).await.unwrap();
            }
            assert_eq!(others.probe(ID).await.unwrap().state, OwnerState::Sealed);
        });
    }
    let from = rig.seam.boot_micros();
    waiters.join_all().await;
    assert!(rig.seam.boot_micros() - from >= LEASE.as_micros() as u64, "nobody is suspected before a whole lease");
    assert_eq!(rig.requests(Op::Get, "inc"), READS_PER_LEASE);
    assert_eq!(rig.requests(Op::Put, "inc"), 2, "to recovering, and to sealed");
    assert_eq!(rig.requests(Op::Put, "w"), 1, "the tombstone");
    assert_eq!(rig.others.sealed(ID).await.unwrap().end.0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_after_the_last_look_is_found_by_the_swap() {
    let mut rig = Rig::new().await;
    assert_eq!(rig.wait().await, OwnerState::LeaseOver);
    rig.renew().await;
    rig.others.seal(ID).await.unwrap();
    let from = rig.seam.boot_micros();
    let probe = rig.others.probe(ID).await.unwrap();
    assert_eq!(probe.state, OwnerState::Alive { address: String::new() });
    assert_eq!(probe.renewed, rig.record.value.version, "its watch begins anew");
    assert_eq!(rig.wait().await, OwnerState::LeaseOver);
    assert!(rig.seam.boot_micros() - from >= LEASE.as_micros() as u64);
    assert!(rig.others.sealed(ID).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_sighting_of_long_ago_is_no_suspicion_if_it_was_renewed_since() {
    let mut rig = Rig::new().await;
    rig.others.probe(ID).await.unwrap();
    rig.renew().await;
    rig.seam.sleep(LEASE * 3).await;
    let probe = rig.others.probe(ID).await.unwrap();
    assert_eq!(probe.state, OwnerState::Alive { address: String::new() });
    assert_eq!(rig.requests(Op::Put, "inc"), 1, "only the renewal");
}
