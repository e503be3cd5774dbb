//! What a server's files take of the local disk, while it reads more than its cache holds and sorts more than there is
//! room for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::rig::{Rig, one_at_a_time};

const CACHE_BYTES: u64 = 64 << 20;
const DATABASES: u64 = 3;
/// Of a KiB each: of one database as much as a transaction may have, and of all of them more than the cache holds.
const ROWS: u64 = 14_000;

/// What the files of a directory take that a process has open, also those without a name.
fn bytes_of_files(pid: u32, directory: &Path) -> u64 {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the server runs");
    let open = open.filter_map(|entry| Some(entry.ok()?.path()));
    let open = open.filter(|path| fs::read_link(path).is_ok_and(|file| file.starts_with(directory)));
    let named = fs::read_dir(directory).expect("its directory").filter_map(|entry| Some(entry.ok()?.path()));
    // What was closed meanwhile takes nothing.
    let files = open.chain(named).filter_map(|path| fs::metadata(path).ok()).filter(fs::Metadata::is_file);
    files.map(|file| (file.ino(), file.blocks() * 512)).collect::<BTreeMap<_, _>>().into_values().sum()
}

#[test]
fn files_stay_within_the_cache_size() {
    let _turn = one_at_a_time();
    let rig = Rig::start(&["--memory", "64MiB", "--cache-size", "64MiB"]);
    let names: Vec<String> = (0..DATABASES).map(|number| format!("db-{number}")).collect();
    let (is_over, pid, directory) = (AtomicBool::new(false), rig.shoal().pid(), rig.cache_path());
    let most = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = bytes_of_files(pid, directory).max(most);
                clock::pause(Duration::from_millis(2));
            }
            most
        });
        for name in &names {
            let client = rig.create(name);
            client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB NOT NULL)");
            client.run(&format!(
                "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {ROWS})
                 INSERT INTO t SELECT id, randomblob(1000) FROM ids"
            ));
            rig.wait_until_quiet();
        }
        let sorts: Vec<_> = names.iter().map(|name| {
            let client = rig.client(name);
            scope.spawn(move || {
                client.run("SELECT sum(length(body)) FROM t");
                client.attempt("SELECT count(*) FROM (SELECT a.body FROM t a, t b WHERE b.id < 5 ORDER BY a.body, b.body LIMIT 60000)")
            })
        }).collect();
        let refused = sorts.into_iter().filter_map(|sort| sort.join().expect("a client").err()).collect::<Vec<_>>();
        println!("{} of {DATABASES} are refused", refused.len());
        assert!(!refused.is_empty() && refused.iter().all(|why| why.contains("--cache-size")), "{refused:?}");
        is_over.store(true, Ordering::Relaxed);
        sampler.join().expect("samples")
    });
    println!("files: {} KiB at most", most >> 10);
    assert!(most <= CACHE_BYTES * 105 / 100, "{most} bytes of files");
    assert!(most >= CACHE_BYTES * 2 / 5, "{most} bytes of files: too few to tell");
}
