//! SQLite's allocator. A process of its own, because it must be installed before SQLite is used at all.

use compute::limits;
use compute::sqlite::memory::{Charging, Meter, Refusal};
use compute::sqlite::sql_space::SqlSpace;
use compute::sqlite::temp_space::TempSpace;
use compute::sqlite::vfs::VFS_NAME;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use segments::cache::{Lending, PageCache};

const SQL: &str = "SELECT length(group_concat(hex(zeroblob(1000)))) FROM
    (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500) SELECT x FROM c)";

#[test]
fn a_database_over_its_limit_gets_nomem_and_others_do_not() {
    compute::sqlite::install();
    let temp = TempSpace::new(0);
    let space = SqlSpace::new(1 << 20, None);
    let small = Meter::new(100_000, temp.share(), space.clone());
    let large = Meter::new(100_000_000, temp.share(), space.clone());
    let connection = Connection::open_in_memory_with_flags_and_vfs(OpenFlags::default(), VFS_NAME).unwrap();
    let ask = || connection.query_row(SQL, [], |row| row.get::<_, i64>(0));
    {
        let _charging = Charging::to(&small);
        assert_eq!(ask().unwrap_err().sqlite_error_code(), Some(ErrorCode::OutOfMemory));
        assert_eq!(small.take_refusal(), Some(Refusal::OverItsLimit { bytes_max: 100_000 }));
        assert_eq!(small.take_refusal(), None);
    }
    {
        let _charging = Charging::to(&large);
        assert_eq!(ask().unwrap(), 500 * 2000 + 499);
    }
    assert_eq!(space.bytes(), small.bytes() + large.bytes(), "the node has heard of it");
    drop(connection);
    assert_eq!((small.bytes(), large.bytes()), (0, 0), "whoever frees a block credits who was charged");
    drop((small, large));
    assert_eq!(space.bytes(), 0);
}

/// A value of so many megabytes, which is built up.
fn concatenated(connection: &Connection, megabytes: u32) -> rusqlite::Result<i64> {
    let sql = format!(
        "SELECT length(group_concat(hex(zeroblob(50000)), '')) FROM
         (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {}) SELECT x FROM c)",
        10 * megabytes
    );
    connection.query_row(&sql, [], |row| row.get(0))
}

#[test]
fn when_the_node_has_no_memory_left_large_statements_are_refused_and_small_ones_are_not() {
    compute::sqlite::install();
    let terms = Lending { free_bytes: 0, bytes_max: 64 << 20, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(8 << 20, terms);
    let (temp, space) = (TempSpace::new(0), SqlSpace::new(0, Some(cache.clone())));
    let meters = [(); 2].map(|()| Meter::new(256 << 20, temp.share(), space.clone()));
    let open = || Connection::open_in_memory_with_flags_and_vfs(OpenFlags::default(), VFS_NAME).unwrap();
    let connection = open();
    let ask = |meter: usize, megabytes: u32| {
        let _charging = Charging::to(&meters[meter]);
        concatenated(&connection, megabytes)
    };
    assert_eq!(ask(0, 20).unwrap(), 20_000_000);
    assert!(cache.lent_bytes() < limits::SQL_SMALL_BYTES, "it is given back");
    // A transaction is being written.
    let mut transaction = cache.lend();
    transaction.set(50 << 20);
    assert_eq!(ask(1, 20).unwrap_err().sqlite_error_code(), Some(ErrorCode::OutOfMemory));
    assert_eq!(meters[1].take_refusal(), Some(Refusal::NodeIsFull));
    assert!(cache.lent_bytes() <= 64 << 20);
    transaction.set(70 << 20);
    assert_eq!(ask(1, 1).unwrap(), 1_000_000, "so much is never refused");
    drop(transaction);
    assert_eq!(ask(1, 20).unwrap(), 20_000_000);
    drop(connection);
    assert_eq!(meters.each_ref().map(|meter| meter.bytes()), [0, 0]);
    drop(meters);
    assert_eq!(space.bytes(), 0);
    drop(space);
    assert_eq!(cache.lent_bytes(), 0);
}

/// Bug: what a meter reported counted as granted. Damage: a statement that yields after little was never asked, and took
/// all of the memory. Fix: a report asks as an allocation does, and grants nothing by itself.
#[test]
fn who_reports_between_allocations_is_asked_all_the_same_and_leaves_some_to_the_next_one() {
    compute::sqlite::install();
    const MEMORY: usize = 64 << 20;
    const ROW: usize = 100_000;
    let terms = Lending { free_bytes: 0, bytes_max: MEMORY, ..Lending::UNBOUNDED };
    let cache = PageCache::lending(8 << 20, terms);
    let (temp, space) = (TempSpace::new(0), SqlSpace::new(0, Some(cache.clone())));
    let open = || {
        let meter = Meter::new(256 << 20, temp.share(), space.clone());
        let connection = {
            let _charging = Charging::to(&meter);
            let connection = Connection::open_in_memory_with_flags_and_vfs(OpenFlags::default(), VFS_NAME).unwrap();
            connection.execute("CREATE TABLE t(a)", []).unwrap();
            connection
        };
        (meter, connection)
    };
    // Fills a database in memory row by row, each of which yields, and tells how much it has when it gets no more.
    let fill = |(meter, connection): &(std::sync::Arc<Meter>, Connection)| {
        let row = || {
            let _charging = Charging::to(meter);
            connection.execute("INSERT INTO t VALUES (zeroblob(?))", [ROW as i64])
        };
        let refused = std::iter::repeat_with(row).find_map(Result::err).expect("at some time there is no more");
        assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::OutOfMemory));
        assert_eq!(meter.take_refusal(), Some(Refusal::NodeIsFull));
        meter.bytes()
    };
    let (first, second, third) = (open(), open(), open());
    let one = fill(&first);
    assert!((MEMORY / 8 * 5..=MEMORY / 4 * 3 + limits::SQL_STEP_BYTES).contains(&one), "three quarters: {one}");
    let two = fill(&second);
    assert!((MEMORY / 8..=MEMORY / 4).contains(&two), "three quarters of the rest: {two}");
    assert!(space.is_full() && cache.left_to_lend() > 0);
    let mut transaction = cache.lend();
    transaction.set(MEMORY);
    let three = fill(&third);
    let least = limits::SQL_SMALL_BYTES - 2 * ROW..=limits::SQL_SMALL_BYTES + limits::SQL_STEP_BYTES;
    assert!(least.contains(&three), "so much in any case, and no more however often it is told: {three}");
    // What it has been told of is what there is, but for the last bit of each.
    let told = space.bytes();
    assert!((one + two + three - 3 * limits::SQL_STEP_BYTES..=one + two + three).contains(&told), "{told}");
    drop((first, second, third));
    assert_eq!(space.bytes(), 0);
}
