//! SQLite's allocator. A process of its own, because it must be installed before SQLite is used at all.

use compute::sqlite::memory::{Charging, Meter};
use compute::sqlite::sql_space::SqlSpace;
use compute::sqlite::temp_space::TempSpace;
use compute::sqlite::vfs::VFS_NAME;
use rusqlite::{Connection, ErrorCode, OpenFlags};

const SQL: &str = "SELECT length(group_concat(hex(zeroblob(1000)))) FROM
    (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500) SELECT x FROM c)";

#[test]
fn a_database_over_its_limit_gets_nomem_and_others_do_not() {
    compute::sqlite::install();
    let temp = TempSpace::new(0);
    let space = SqlSpace::new(1 << 20);
    let small = Meter::new(100_000, temp.share(), space.clone());
    let large = Meter::new(100_000_000, temp.share(), space.clone());
    let connection = Connection::open_in_memory_with_flags_and_vfs(OpenFlags::default(), VFS_NAME).unwrap();
    let ask = || connection.query_row(SQL, [], |row| row.get::<_, i64>(0));
    {
        let _charging = Charging::to(&small);
        assert_eq!(ask().unwrap_err().sqlite_error_code(), Some(ErrorCode::OutOfMemory));
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
