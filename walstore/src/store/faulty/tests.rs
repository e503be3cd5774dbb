//! Each fault alone, and that a seed repeats itself.

use super::*;
use crate::store::MemoryStore;

const ALWAYS: u32 = 1_000_000;

/// Time stands still and moves by itself when everybody waits.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

fn run<T>(test: impl Future<Output = T>) -> T {
    runtime().block_on(test)
}

fn store(faults: Faults) -> FaultyStore<MemoryStore> {
    FaultyStore::new(MemoryStore::new(), Seam::production(), 1, faults, None)
}

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn create(store: &impl Store, text: &'static str) -> Result<Put, StoreError> {
    store.put(&Key::new("k"), body(text), &Condition::Absent).await
}

fn content(store: &FaultyStore<MemoryStore>) -> Option<Bytes> {
    store.inner().snapshot().remove(&Key::new("k"))
}

#[test]
fn a_lost_write_is_indefinite_and_writes_nothing() {
    run(async {
        let store = store(Faults { lost: ALWAYS, ..Faults::default() });
        assert_eq!(create(&store, "a").await.unwrap_err().kind, StoreErrorKind::Indefinite);
        assert_eq!(store.get(&Key::new("k")).await.unwrap_err().kind, StoreErrorKind::Retry);
        assert_eq!(content(&store), None);
        assert_eq!(store.fault_counts(), BTreeMap::from([(Fault::Lost, 2)]));
    });
}

#[test]
fn a_write_whose_answer_is_lost_is_indefinite_and_written() {
    run(async {
        let store = store(Faults { answer_lost: ALWAYS, ..Faults::default() });
        assert_eq!(create(&store, "a").await.unwrap_err().kind, StoreErrorKind::Indefinite);
        assert_eq!(content(&store), Some(body("a")));
    });
}

#[test]
fn a_late_write_takes_effect_after_its_caller_gave_up() {
    run(async {
        let second = Duration::from_secs(1);
        let late_time = Latency::uniform(second, second);
        let store =
            store(Faults { late: ALWAYS, late_time, patience: second, ..Faults::default() });
        assert_eq!(create(&store, "a").await.unwrap_err().kind, StoreErrorKind::Indefinite);
        assert_eq!(content(&store), None);
        Seam::production().sleep(2 * second).await;
        assert_eq!(content(&store), Some(body("a")));
    });
}

#[test]
fn a_duplicate_of_an_unconditional_write_undoes_what_came_between() {
    run(async {
        let second = Duration::from_secs(1);
        let late_time = Latency::uniform(second, second);
        let store = store(Faults { duplicated: ALWAYS, late_time, ..Faults::default() });
        let key = Key::new("k");
        store.put(&key, body("old"), &Condition::None).await.unwrap();
        store.set_faults(Faults::default());
        store.put(&key, body("new"), &Condition::None).await.unwrap();
        assert_eq!(content(&store), Some(body("new")));
        Seam::production().sleep(2 * second).await;
        assert_eq!(content(&store), Some(body("old")));
    });
}

#[test]
fn a_repeated_write_comes_again_and_again_after_its_sender_has_died() {
    run(async {
        let minute = Duration::from_secs(60);
        let faults = Faults {
            repeated: ALWAYS,
            repeat_count: 2,
            repeat_time: Latency::uniform(minute, minute),
            ..Faults::default()
        };
        let store = store(faults);
        create(&store, "a").await.unwrap();
        store.crash();
        for _ in 0..2 {
            store.inner().delete(&Key::new("k")).await.unwrap();
            Seam::production().sleep(minute + minute / 2).await;
            assert_eq!(content(&store), Some(body("a")));
        }
        store.inner().delete(&Key::new("k")).await.unwrap();
        Seam::production().sleep(10 * minute).await;
        assert_eq!(content(&store), None);
    });
}

#[test]
fn errors_about_a_write_leave_open_whether_it_happened() {
    let rate = |fault: fn(&mut Faults) -> &mut u32| {
        let mut faults = Faults::default();
        *fault(&mut faults) = ALWAYS;
        faults
    };
    let cases = [
        (rate(|f| &mut f.throttled), false),
        (rate(|f| &mut f.conflict), false),
        (rate(|f| &mut f.truncated), false),
        (rate(|f| &mut f.black_hole), false),
        (rate(|f| &mut f.failed_applied), true),
        (rate(|f| &mut f.conflict_applied), true),
        (rate(|f| &mut f.reset), true),
    ];
    for (faults, is_written) in cases {
        run(async {
            let name = format!("{faults:?}");
            let store = store(faults);
            assert_eq!(create(&store, "a").await.unwrap_err().kind, StoreErrorKind::Indefinite, "{name}");
            Seam::production().sleep(Duration::from_secs(1)).await;
            assert_eq!(content(&store).is_some(), is_written, "{name}");
        });
    }
}

#[test]
fn an_own_refusal_is_a_412_to_a_write_that_took_place() {
    run(async {
        let store = store(Faults { own_refusal: ALWAYS, ..Faults::default() });
        assert_eq!(create(&store, "a").await.unwrap(), Put::Refused);
        assert_eq!(content(&store), Some(body("a")));
        // Without a condition there is nothing to refuse.
        let done = store.put(&Key::new("k"), body("b"), &Condition::None).await.unwrap();
        assert!(matches!(done, Put::Done(_)));
    });
}

#[test]
fn a_read_that_is_cut_off_is_an_error_and_not_a_short_object() {
    run(async {
        let store = store(Faults::default());
        create(&store, "a").await.unwrap();
        store.set_faults(Faults { truncated: ALWAYS, ..Faults::default() });
        assert_eq!(store.get(&Key::new("k")).await.unwrap_err().kind, StoreErrorKind::Retry);
        let range = store.get_range(&Key::new("k"), 0..1).await;
        assert_eq!(range.unwrap_err().kind, StoreErrorKind::Retry);
    });
}

#[test]
fn listings_may_lack_keys_or_break_the_stores_own_rules() {
    run(async {
        let store = store(Faults::default());
        for key in 0..40 {
            store.put(&Key::new(format!("k/{key:02}")), body("a"), &Condition::None).await.unwrap();
        }
        let all = store.list("k/", None, 100).await.unwrap();
        store.set_faults(Faults { stale_list: ALWAYS, ..Faults::default() });
        let stale = store.list("k/", None, 100).await.unwrap();
        assert!(stale.len() < all.len() && stale.is_sorted() && stale.iter().all(|key| all.contains(key)));
        store.set_faults(Faults { disordered_list: ALWAYS, ..Faults::default() });
        assert_eq!(store.list("k/", None, 100).await.unwrap_err().kind, StoreErrorKind::Invalid);
    });
}

#[test]
fn a_black_hole_swallows_everything_for_a_while() {
    run(async {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let black_hole_time = Latency::uniform(minute, minute);
        let store = store(Faults { black_hole: ALWAYS, black_hole_time, patience: second, ..Faults::default() });
        assert_eq!(create(&store, "a").await.unwrap_err().kind, StoreErrorKind::Indefinite);
        assert_eq!(create(&store, "a").await.unwrap_err().kind, StoreErrorKind::Indefinite);
        assert_eq!((content(&store), store.fault_counts()), (None, BTreeMap::from([(Fault::BlackHole, 2)])));
        store.set_faults(Faults::default());
        create(&store, "a").await.unwrap();
        assert_eq!(content(&store), Some(body("a")));
    });
}

#[test]
fn an_outage_answers_503_until_it_ends() {
    run(async {
        let store = store(Faults::default());
        store.set_outage(true);
        assert_eq!(create(&store, "a").await.unwrap_err().kind, StoreErrorKind::Indefinite);
        assert_eq!(store.list("", None, 1).await.unwrap_err().kind, StoreErrorKind::Retry);
        store.set_outage(false);
        assert!(matches!(create(&store, "b").await, Ok(Put::Done(_))));
    });
}

#[test]
fn what_was_sent_before_a_crash_arrives_and_nobody_hears_of_it() {
    run(async {
        let second = Duration::from_secs(1);
        let store =
            store(Faults { latency: Latency::uniform(second, second), ..Faults::default() });
        let mut sent = Box::pin(create(&store, "a"));
        assert!(poll_once(&mut sent).await.is_none());
        store.crash();
        Seam::production().sleep(3 * second).await;
        assert!(poll_once(&mut sent).await.is_none());
        assert_eq!(content(&store), Some(body("a")));
        let key = Key::new("k");
        let mut after = Box::pin(store.delete(&key));
        assert!(poll_once(&mut after).await.is_none());
        Seam::production().sleep(3 * second).await;
        assert_eq!(content(&store), Some(body("a")));
    });
}

async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|context| {
        let polled = std::pin::Pin::new(&mut *future).poll(context);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

fn traced(seed: u64) -> Vec<String> {
    run(async {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let trace: Trace = Arc::new(move |line: &TraceLine| {
            let start = line.to_string();
            // Leaves out the time, which counts from the machine's start.
            let (_, line) = start.split_once(' ').expect("a line starts with its time");
            sink.lock().expect("no panic").push(line.to_owned());
        });
        let faults = Faults {
            lost: 100_000,
            answer_lost: 100_000,
            late: 100_000,
            duplicated: 100_000,
            unavailable: 100_000,
            slow: 100_000,
            latency: Latency::uniform(Duration::from_millis(1), Duration::from_millis(50)),
            slow_time: Latency::uniform(Duration::from_millis(100), Duration::from_millis(900)),
            late_time: Latency::uniform(Duration::from_millis(1), Duration::from_millis(900)),
            patience: Duration::from_millis(200),
            repeated: 20_000,
            throttled: 20_000,
            failed_applied: 20_000,
            reset: 20_000,
            conflict: 20_000,
            conflict_applied: 20_000,
            own_refusal: 20_000,
            truncated: 20_000,
            black_hole: 5_000,
            repeat_time: Latency::uniform(Duration::from_millis(1), Duration::from_millis(900)),
            repeat_count: 2,
            black_hole_time: Latency::uniform(Duration::from_millis(100), Duration::from_millis(900)),
            ..Faults::default()
        };
        let store =
            FaultyStore::new(MemoryStore::new(), Seam::production(), seed, faults, Some(trace));
        let writer = async |name: &str| {
            for n in 0..20 {
                let key = Key::new(format!("{name}/{}", n % 5));
                store.put(&key, Bytes::from(vec![n; 9]), &Condition::Absent).await.ok();
                store.get(&key).await.ok();
            }
        };
        tokio::join!(writer("a"), writer("b"), writer("c"));
        Seam::production().sleep(Duration::from_secs(9)).await;
        let lines = lines.lock().expect("no panic");
        lines.clone()
    })
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let first = traced(42);
    assert!(first.len() >= 120, "{} lines", first.len());
    assert_eq!(first, traced(42));
    assert_ne!(first, traced(43));
}
