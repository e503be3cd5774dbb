//! One database of a node on a bucket in memory, with a connection whose statements run on fresh stacks.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use compute::database::Database;
use compute::database::pages::{self, Base};
use compute::hrana::request::SqlSource;
use compute::node::{CoreThreads, Node, Settings};
use compute::session::connection::SqlConnection;
use compute::session::execute::Failure;
use compute::sqlite::coroutine::{self, Wait, Wake};
use compute::sqlite::stack::SqlStack;
use compute::sqlite::{temp, vfs};
use pageserver::base::inline_base_of;
use tenant::name::Name;
use tenant::registry;
use tokio::runtime::Runtime;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seam::Seam;
use walstore::store::MemoryStore;

/// Owns everything on the thread that made it.
pub struct Rig {
    // Closed before what it runs on.
    connection: Rc<SqlConnection>,
    database: Rc<Database>,
    runtime: Runtime,
    _node: Node,
}

impl Rig {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (node, database) = runtime.block_on(async {
            let seam = Seam::production();
            let stores = Stores::one(Arc::new(MemoryStore::new()));
            let id = IncarnationId::random(&seam);
            let node = Node::start(id, stores.clone(), seam.clone(), Settings::default(), &CoreThreads).await.expect("a node");
            vfs::set_thread_seam(seam.clone());
            temp::set_thread_directory(node.context.settings.temp_directory.clone());
            let (name, patience) = (Name::parse("app").expect("a name"), Patience::for_duration(&seam, Duration::from_secs(5)));
            let settings = tenant::settings::Settings::new(seam.wall_micros());
            let head = registry::create_database(&*stores.main, &seam, &name, id, settings, patience).await.expect("a head").value;
            let base = inline_base_of(&head).expect("an empty base").expect("it is no fork");
            let base = Base::of_parts(base);
            let database = Database::new((head.database, name, head.epoch), node.context.clone(), 0, 0, base);
            (node, Rc::new(database))
        });
        let of = database.clone();
        let (connection, _) = on_fresh_stack(&runtime, &database, move || SqlConnection::open(&of));
        let connection = Rc::new(connection.unwrap_or_else(|error| panic!("a connection: {error}")));
        Self { connection, database, runtime, _node: node }
    }

    /// Runs the statements of a text as a client's `sequence` request does, and tells how much stack it used.
    pub fn run(&self, sql: String) -> (Result<(), String>, usize) {
        let connection = self.connection.clone();
        on_fresh_stack(&self.runtime, &self.database, move || {
            let source = SqlSource { sql: Some(sql), sql_id: None };
            connection.sequence(&source, &BTreeMap::new()).map_err(|failure| match failure {
                Failure::Statement(error) => error.message,
                Failure::Protocol(error) => error.to_string(),
            })
        })
    }
}

fn on_fresh_stack<T: 'static>(
    runtime: &Runtime,
    database: &Rc<Database>,
    body: impl FnOnce() -> T + 'static,
) -> (T, usize) {
    // Zeros, until it is used.
    let stack = SqlStack::map().expect("a stack");
    let serve = |wait: Wait| {
        let node = database.node.clone();
        async move {
            match wait {
                Wait::Yield => Wake::Ready,
                Wait::Fetch(fetch) => pages::fetch(&node.fetcher, fetch).await.map_or_else(Wake::Failed, |()| Wake::Ready),
                // Nobody else writes, and nothing is sent.
                Wait::Turn | Wait::Memory | Wait::Send(_) => Wake::Abandon,
            }
        }
    };
    let (result, stack) = runtime.block_on(coroutine::run(stack, &database.meter, body, serve));
    let result = result.unwrap_or_else(|panicked| panic!("{}", panicked.0));
    (result, stack.touched_bytes())
}
