//! What a cache on a disk without faults does, on every back end.

use crate::rig::{Medium, Rng, entry, run};

const CAPACITY: u64 = 4 << 20;

#[test]
fn what_was_put_is_there_at_once_and_once_it_is_written_and_after_a_restart() {
    run(false, async {
        for (name, medium) in Medium::all() {
            let cache = medium.open(CAPACITY).await;
            let entries: Vec<_> = (0..60).map(|number| entry(number, 1 + number as usize * 731)).collect();
            for (key, stored) in &entries {
                assert_eq!(cache.get(key).await, None, "{name}");
                cache.put(key, stored);
                assert!(cache.get(key).await.as_ref() == Some(stored), "{name}: in memory");
            }
            let (reads, in_memory) = (cache.counters().reads, cache.memory_bytes());
            cache.settle().await;
            for (key, stored) in &entries {
                assert!(cache.get(key).await.as_ref() == Some(stored), "{name}: from the file");
            }
            let counters = cache.counters();
            assert_eq!(counters.reads - reads, 60, "{name}: one read each");
            assert!(cache.memory_bytes() < in_memory && counters.writes < 10, "{name}: {counters:?}");
            assert_eq!((counters.hits, counters.misses, counters.damaged, counters.refused), (120, 60, 0, 0), "{name}");
            drop(cache);
            let cache = medium.open(CAPACITY).await;
            assert_eq!((cache.entry_count(), cache.counters().entries_found), (60, 60), "{name}");
            let scan = cache.counters();
            assert!(scan.bytes_read < 10_000, "{name}: a restart reads headers and directories only: {scan:?}");
            for (key, stored) in &entries {
                assert!(cache.get(key).await.as_ref() == Some(stored), "{name}: after a restart");
            }
        }
    });
}

#[test]
fn the_file_stays_within_its_size_and_the_newest_entries_are_there() {
    run(false, async {
        for (name, medium) in Medium::all() {
            let cache = medium.open(CAPACITY).await;
            for number in 0..400 {
                let (key, stored) = entry(number, 50_000);
                cache.put(&key, &stored);
                if number % 5 == 0 {
                    cache.settle().await;
                }
            }
            cache.settle().await;
            assert!(medium.bytes() <= CAPACITY && medium.bytes() > CAPACITY / 2, "{name}: {}", medium.bytes());
            let counters = cache.counters();
            assert!(counters.regions_evicted >= 30 && counters.refused == 0, "{name}: {counters:?}");
            for number in 380..400 {
                let (key, stored) = entry(number, 50_000);
                assert!(cache.get(&key).await == Some(stored), "{name}: {number}");
            }
            assert_eq!(cache.get(&entry(0, 50_000).0).await, None, "{name}: the oldest is gone");
        }
    });
}

/// A database that is read again and again keeps its entries while another is scanned once, ten times the cache.
#[test]
fn a_scan_does_not_push_out_what_is_read_again() {
    run(false, async {
        for (name, medium) in Medium::all() {
            let cache = medium.open(CAPACITY).await;
            let hot: Vec<_> = (0..10).map(|number| entry(number * 4, 30_000)).collect();
            let mut misses = 0;
            for round in 0..800 {
                let (key, stored) = entry(1_001 + round * 4, 50_000);
                cache.put(&key, &stored);
                let (key, stored) = &hot[round as usize % 10];
                if cache.get(key).await.is_none() {
                    misses += 1;
                    cache.put(key, stored);
                }
                if round % 5 == 4 {
                    cache.settle().await;
                }
            }
            assert_eq!(misses, 10, "{name}: each is read from the bucket once");
            assert!(cache.counters().entries_kept >= 50, "{name}: {:?}", cache.counters());
        }
    });
}

#[test]
fn a_cache_that_is_opened_smaller_or_larger_keeps_its_file_within_its_size_and_never_lies() {
    run(false, async {
        for (name, medium) in Medium::all() {
            let mut rng = Rng(5);
            for capacity in [8 << 20, 3 << 20, 300 << 20, 4 << 20, 1 << 20, 8 << 20] {
                let cache = medium.open(capacity).await;
                for number in 0..300 {
                    let (key, stored) = entry(number, 1_000 + number as usize * 97);
                    let found = cache.get(&key).await;
                    assert!(found.is_none_or(|found| found == stored), "{name}: {number}");
                    if rng.below(3) > 0 {
                        cache.put(&key, &stored);
                    }
                }
                cache.settle().await;
                assert!(cache.file_bytes_max() <= capacity, "{name}");
                let is_file_of_ours = cache.file_bytes_max() > 0 && name != "simulated";
                assert!(!is_file_of_ours || medium.bytes() <= capacity, "{name}: {}", medium.bytes());
            }
        }
    });
}

#[test]
fn many_reads_at_once_are_all_answered_or_misses() {
    run(false, async {
        for (name, medium) in Medium::all() {
            let cache = medium.open(16 << 20).await;
            let entries: Vec<_> = (0..200).map(|number| entry(number, 20_000)).collect();
            for (key, stored) in &entries {
                cache.put(key, stored);
            }
            cache.settle().await;
            let mut reads = tokio::task::JoinSet::new();
            for number in 0..2_000 {
                let (cache, (key, stored)) = (cache.clone(), entries[number % 200].clone());
                reads.spawn(async move { cache.get(&key).await.map(|found| assert_eq!(found, stored)).is_some() });
            }
            let answers = reads.join_all().await;
            let found = answers.iter().filter(|found| **found).count();
            assert!(found >= 200, "{name}: {found}");
            let counters = cache.counters();
            assert_eq!((counters.damaged, counters.hits), (0, found as u64), "{name}");
            assert_eq!(cache.entry_count(), 200, "{name}: a miss because of a queue forgets nothing");
        }
    });
}

#[test]
fn what_cannot_be_kept_is_a_miss() {
    run(false, async {
        let medium = Medium::simulated(3);
        let cache = medium.open(CAPACITY).await;
        let (key, stored) = entry(1, 3 << 20);
        cache.put(&key, &stored);
        assert_eq!((cache.get(&key).await, cache.counters().refused), (None, 1), "too large");
        let (key, stored) = entry(2, 1_000);
        cache.put(&key, &stored.slice(1..));
        cache.put(&key, &entry(3, 1_000).1);
        assert_eq!(cache.get(&key).await, None, "not what the key says");
        let absent = medium.open(1_000).await;
        absent.put(&key, &stored);
        absent.settle().await;
        assert_eq!((absent.get(&key).await, absent.file_bytes_max()), (None, 0), "too small to be of use");
    });
}
