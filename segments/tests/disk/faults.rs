//! The n-th request to the disk fails, for every n of a script; and the disk is full or dead for good, and comes back.

use std::io::ErrorKind;
use std::time::Duration;

use segments::disk::DiskCache;
use segments::disk::file::simulated::SimulatedDisk;

use crate::rig::{Medium, entry, run, seam};

const CAPACITY: u64 = 3 << 20;
const ENTRY_BYTES: usize = 60_000;

async fn read(cache: &DiskCache, number: u64) -> bool {
    let (key, stored) = entry(number, ENTRY_BYTES);
    let found = cache.get(&key).await;
    assert!(found.as_ref().is_none_or(|found| *found == stored), "I15: wrong bytes for {number}");
    found.is_some()
}

fn put(cache: &DiskCache, number: u64) {
    let (key, stored) = entry(number, ENTRY_BYTES);
    cache.put(&key, &stored);
}

/// Fills the cache over its size, reading along, restarts it, and reads all. Answers how many entries were there.
async fn script(disk: &SimulatedDisk) -> usize {
    let medium = Medium::Simulated(disk.clone());
    let cache = medium.open(CAPACITY).await;
    for number in 0..100 {
        if !read(&cache, number % 20).await {
            put(&cache, number % 20);
        }
        put(&cache, 1_000 + number);
        if number % 8 == 0 {
            cache.settle().await;
            seam().sleep(Duration::from_secs(10)).await;
        }
    }
    cache.settle().await;
    drop(cache);
    let cache = medium.open(CAPACITY).await;
    let mut found = 0;
    for number in (0..20).chain(1_000..1_100) {
        found += usize::from(read(&cache, number).await);
    }
    found
}

fn requests_of_the_script() -> (u64, usize) {
    let disk = SimulatedDisk::new(0);
    let found = run(true, script(&disk));
    (disk.request_count(), found)
}

#[test]
fn the_nth_request_fails_and_nothing_else_does() {
    let (requests, undisturbed) = requests_of_the_script();
    assert!(requests > 120 && undisturbed > 30, "{requests}, {undisturbed}");
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for n in 0..requests {
            let disk = SimulatedDisk::new(n);
            disk.fail(n, 1, kind);
            let found = run(true, script(&disk));
            // A batch at most is lost, or a region that could not be scanned.
            assert!(found + 25 > undisturbed, "{kind}, request {n}: {found} of {undisturbed} entries");
        }
    }
}

/// From its n-th request on the disk fails; a while after it works again, the cache does too.
#[test]
fn a_disk_that_fails_for_good_leaves_no_cache_and_one_that_recovers_leaves_one() {
    let (requests, _) = requests_of_the_script();
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for n in (0..requests).step_by(7) {
            let disk = SimulatedDisk::new(n);
            disk.fail(n, u64::MAX / 2, kind);
            run(true, async {
                script(&disk).await;
                let cache = Medium::Simulated(disk.clone()).open(CAPACITY).await;
                for number in 0..200 {
                    put(&cache, number);
                    read(&cache, number).await;
                    cache.settle().await;
                }
                disk.fail(0, 0, kind);
                seam().sleep(Duration::from_secs(61)).await;
                for number in 500..510 {
                    put(&cache, number);
                    cache.settle().await;
                }
                for number in 500..510 {
                    assert!(read(&cache, number).await, "{kind} from {n} on: {number} is missing");
                }
                assert_eq!(cache.counters().damaged, 0);
            });
        }
    }
}

/// A disk that fills up while the file grows: the cache goes on in the regions that it has.
#[test]
fn a_full_disk_makes_the_cache_smaller() {
    run(true, async {
        let disk = SimulatedDisk::new(9);
        let cache = Medium::Simulated(disk.clone()).open(16 << 20).await;
        for number in 0..60 {
            put(&cache, number);
        }
        cache.settle().await;
        let before = disk.edit(|bytes| bytes.len());
        disk.fail(0, 1, ErrorKind::StorageFull);
        let mut refused = 0;
        for number in 100..300 {
            put(&cache, number);
            cache.settle().await;
            refused += u64::from(!read(&cache, number).await);
        }
        assert!(refused < 30, "{refused} of 200");
        let after = disk.edit(|bytes| bytes.len());
        assert!(after <= before + (512 << 10), "it grew from {before} to {after}");
        seam().sleep(Duration::from_secs(61)).await;
        for number in 300..500 {
            put(&cache, number);
            cache.settle().await;
        }
        assert!(disk.edit(|bytes| bytes.len()) > 2 * before, "it grows again");
    });
}

/// A disk that answers slower than the bucket: reads give up on it.
#[test]
fn a_disk_that_hangs_holds_nobody_up() {
    use segments::disk::file::simulated::DiskFaults;
    run(true, async {
        let disk = SimulatedDisk::new(4);
        let fill = Medium::Simulated(disk.clone()).open(CAPACITY).await;
        (0..10).for_each(|number| put(&fill, number));
        fill.settle().await;
        let (seam, slow) = (seam(), DiskFaults { slow: 1_000_000, ..DiskFaults::default() });
        let cache = DiskCache::open(&seam, disk.open(&seam, slow, std::sync::Arc::new(|_, _| {})), CAPACITY);
        cache.settle().await;
        let before = seam.boot_micros();
        for number in 0..10 {
            assert!(!read(&cache, number).await);
        }
        assert!(seam.boot_micros() - before < 10_000_000);
    });
}
