//! An SQLite connection to one database: opened through the VFS, hardened, and reset between users.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, ffi};

use super::prepared::KnownTexts;
use crate::database::Database;
use crate::database::file::{self, DatabaseFile};
use crate::hrana::error::HranaError;
use crate::limits;
use crate::sqlite::coroutine::{Wait, Wake, suspend};
use crate::sqlite::functions::{self, ChangeCount};
use crate::sqlite::vfs;

/// What the authorizer learned while statements were prepared.
#[derive(Debug, Default)]
pub struct Observed {
    /// The connection carries state that outlives a statement: a pragma was set, a temporary object made.
    pub has_state: AtomicBool,
    /// The statement inserts rows into a table that a user can name.
    pub inserts: AtomicBool,
    /// The statement is an INSERT, UPDATE or DELETE of such a table.
    pub changes_rows: AtomicBool,
    /// The statement does more than read and change rows.
    pub does_more: AtomicBool,
    /// The statement is VACUUM, whose internal ATTACH is allowed.
    pub vacuuming: AtomicBool,
    /// Why the last statement was not authorized; SQLite itself says no more than that it wasn't.
    refusal: Mutex<Option<&'static str>>,
}

impl Observed {
    fn refuse(&self, why: &'static str) -> Authorization {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        Authorization::Deny
    }

    /// Why the statement that has just failed was not authorized.
    pub fn take_refusal(&self) -> Option<&'static str> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One connection. Used by one stream at a time, inside of coroutines of its core.
pub struct SqlConnection {
    pub sql: Connection,
    pub file: Rc<file::Connection>,
    pub observed: Arc<Observed>,
    pub changes: Arc<ChangeCount>,
    /// The open transaction was begun as one that must not write.
    pub read_only: Cell<bool>,
    pub known: KnownTexts,
    /// Statements run so far, to let others run between them.
    pub statements: Cell<u32>,
}

impl SqlConnection {
    /// Opens a connection. Runs inside a coroutine, as SQLite may read the file's header.
    pub fn open(database: &Rc<Database>) -> Result<Self, HranaError> {
        let file = file::Connection::new(database.clone());
        Self::open_file(&file).map_err(|error| match file.take_cause() {
            Some(cause) => cause.into(),
            None => {
                let code = error.sqlite_error().map_or(rusqlite::ffi::SQLITE_ERROR, |it| it.extended_code);
                HranaError::sqlite(code, &error.to_string(), None)
            }
        })
    }

    fn open_file(file: &Rc<file::Connection>) -> rusqlite::Result<Self> {
        vfs::announce(Box::new(DatabaseFile(file.clone())));
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut sql = Connection::open_with_flags_and_vfs(vfs::DATABASE_PATH, flags, vfs::VFS_NAME)?;
        let (observed, changes) = (Arc::new(Observed::default()), Arc::new(ChangeCount::default()));
        harden(&sql)?;
        if file.database.node.sql.is_full() {
            sql.pragma_update(None, "cache_size", limits::CONNECTION_CACHE_SMALL_KIB)?;
        }
        install_hooks(&mut sql, file, &observed, &changes)?;
        let (read_only, known, statements) = (Cell::new(false), KnownTexts::default(), Cell::new(0));
        Ok(Self { sql, file: file.clone(), observed, changes, read_only, known, statements })
    }

    /// Whether the stream that uses this connection must keep it: an open transaction, or state in it.
    pub fn has_state(&self) -> bool {
        !self.sql.is_autocommit() || self.observed.has_state.load(Ordering::Relaxed)
    }

    /// Makes the connection forget its last user. Only for connections without state.
    pub fn reset(&self) {
        self.changes.reset(&self.sql);
        self.file.reset();
    }
}

/// Opens a file of this machine that nobody has looked at yet, to read it, confined as clients' connections are.
pub fn open_confined(path: &Path) -> rusqlite::Result<Connection> {
    let encoded: String = path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("%{byte:02X}")).collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{encoded}?immutable=1");
    let mut sql = Connection::open_with_flags_and_vfs(uri, flags, "unix")?;
    harden(&sql)?;
    sql.pragma_update(None, "cell_size_check", true)?;
    sql.pragma_update(None, "temp_store", "MEMORY")?;
    let (observed, changes) = (Arc::new(Observed::default()), Arc::new(ChangeCount::default()));
    sql.authorizer(Some(move |context: AuthContext<'_>| authorize(&context, &observed, &changes)))?;
    Ok(sql)
}

/// What holds on every connection whose database or statements come from outside.
fn harden(sql: &Connection) -> rusqlite::Result<()> {
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Bounds that keep the deepest recursion inside the coroutine's stack.
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 300),
        // With the one above it bounds how deep generated columns that use each other can nest: 120,000 levels, of
        // up to 750 bytes.
        (Limit::SQLITE_LIMIT_COLUMN, 400),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 5_000),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, limits::TRIGGER_DEPTH_MAX),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 500),
        (Limit::SQLITE_LIMIT_ATTACHED, 1),
        (Limit::SQLITE_LIMIT_LENGTH, 64 << 20),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 4 << 20),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        sql.set_limit(limit, value)?;
    }
    sql.set_prepared_statement_cache_capacity(limits::KEPT_STATEMENTS_MAX);
    sql.pragma_update(None, "cache_size", limits::CONNECTION_CACHE_KIB)?;
    Ok(())
}

fn install_hooks(
    sql: &mut Connection,
    file: &Rc<file::Connection>,
    observed: &Arc<Observed>,
    changes: &Arc<ChangeCount>,
) -> rusqlite::Result<()> {
    functions::install(sql, changes)?;
    let turn = file.turn_flag();
    // SQLite asks only while no transaction is open: with the turn in hand, a fresh snapshot is the newest.
    sql.busy_handler(Some(move |tries| turn.load(Ordering::Relaxed) && tries < 3))?;
    sql.progress_handler(limits::PROGRESS_STEPS, Some(|| !matches!(suspend(Wait::Yield), Wake::Ready)))?;
    let (observed, changes) = (observed.clone(), changes.clone());
    sql.authorizer(Some(move |context: AuthContext<'_>| authorize(&context, &observed, &changes)))
}

fn authorize(context: &AuthContext<'_>, observed: &Observed, changes: &ChangeCount) -> Authorization {
    let of_a_trigger = context.accessor.is_some();
    if !only_rows(&context.action) {
        observed.does_more.store(true, Ordering::Relaxed);
    }
    match context.action {
        // VACUUM attaches a nameless temporary file. Any other name could be a file of this machine:
        // `file:…?vfs=unix` in it reaches around our VFS.
        AuthAction::Attach { filename: "" } if observed.vacuuming.load(Ordering::Relaxed) => {}
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => return observed.refuse(ONE_DATABASE),
        // An action without the arguments that it should have: so looks an ATTACH whose file name is an
        // expression. What can't be judged isn't allowed.
        AuthAction::Unknown { code: ffi::SQLITE_ATTACH | ffi::SQLITE_DETACH, .. } => return observed.refuse(ONE_DATABASE),
        AuthAction::Unknown { .. } => return observed.refuse("this server does not know this kind of statement"),
        // It would replace our busy handler. The database file answers it; any other name of a database leads past it.
        AuthAction::Pragma { pragma_name, .. }
            if pragma_name.eq_ignore_ascii_case("busy_timeout") && context.database_name.is_some_and(|name| name != "main") =>
        {
            return Authorization::Ignore;
        }
        AuthAction::Pragma { pragma_name, pragma_value } => return pragma(pragma_name, pragma_value, observed),
        AuthAction::Function { function_name: "load_extension" | "fts3_tokenizer" } => {
            return observed.refuse("extensions cannot be loaded");
        }
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => observed.has_state.store(true, Ordering::Relaxed),
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => {
            changes.began.store(true, Ordering::Relaxed);
            // The schema's own tables change with every CREATE and DROP.
            if !of_a_trigger && (!table_name.starts_with("sqlite_") || table_name == "sqlite_sequence") {
                observed.changes_rows.store(true, Ordering::Relaxed);
                if matches!(context.action, AuthAction::Insert { .. }) {
                    observed.inserts.store(true, Ordering::Relaxed);
                }
            }
        }
        _ => {}
    }
    Authorization::Allow
}

/// Whether an action reads or changes rows, and nothing else.
fn only_rows(action: &AuthAction<'_>) -> bool {
    use AuthAction::{Delete, Function, Insert, Read, Recursive, Select, Update};
    matches!(action, Delete { .. } | Function { .. } | Insert { .. } | Read { .. } | Recursive | Select | Update { .. })
}

const ONE_DATABASE: &str =
    "a connection has one database and no files: ATTACH, DETACH and VACUUM INTO are not available; to copy a \
     database, export it with `shoal db export <URL> <FILE>`";

/// Pragmas that take an argument and still leave nothing behind in the connection: they ask, or they
/// change the database itself.
const STATELESS_PRAGMAS: [&str; 23] = [
    "application_id", "busy_timeout", "foreign_key_check", "foreign_key_list", "incremental_vacuum", "index_info", "index_list",
    "index_xinfo", "integrity_check", "journal_mode", "locking_mode", "optimize", "page_size", "quick_check",
    "schema_version", "shrink_memory", "table_info", "table_list", "table_xinfo", "user_version",
    "wal_autocheckpoint", "wal_checkpoint", "auto_vacuum",
];

/// Pragmas that reach beyond the connection: into the process, or into the file system.
const REFUSED_PRAGMAS: [&str; 9] = [
    "data_store_directory", "hard_heap_limit", "lock_proxy_file", "soft_heap_limit", "temp_store_directory",
    "threads", "writable_schema", "trusted_schema", "cell_size_check",
];

fn pragma(name: &str, value: Option<&str>, observed: &Observed) -> Authorization {
    if value.is_none() {
        return Authorization::Allow;
    }
    let name = name.to_ascii_lowercase();
    if REFUSED_PRAGMAS.contains(&name.as_str()) {
        return observed.refuse("this pragma would reach beyond the connection, or behind the schema");
    }
    if !STATELESS_PRAGMAS.contains(&name.as_str()) {
        observed.has_state.store(true, Ordering::Relaxed);
    }
    Authorization::Allow
}
