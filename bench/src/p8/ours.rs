//! A node in this process, on a bucket in memory, whose database is used without HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use compute::core::{JobError, Message};
use compute::hrana::HranaVersion;
use compute::hrana::request::{SqlSource, Stmt, StreamRequest};
use compute::hrana::response::StreamResponse;
use compute::hrana::value::Value;
use compute::node::{CoreThreads, Node, NodeHandle, Settings};
use compute::session::pool::Role;
use compute::session::stream::Stream;
use tenant::name::Name;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::MemoryStore;

use super::work::{self, Spent, Work};
use crate::clock;

pub struct Ours {
    handle: NodeHandle,
    name: Name,
    _node: Node,
    runtime: Runtime,
}

impl Ours {
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let name = Name::parse("app")?;
        let node = runtime.block_on(async {
            let seam = Seam::production();
            let stores = Stores::one(Arc::new(MemoryStore::new()));
            let settings = Settings { cores: 1, ..Settings::default() };
            Node::start(IncarnationId::random(&seam), stores, seam, settings, &CoreThreads).await
        })?;
        let handle = node.handle();
        let (reply, created) = oneshot::channel();
        handle.send(&name, Message::Create { name: name.clone(), reply })?;
        runtime.block_on(created)??;
        let ours = Self { handle, name, _node: node, runtime };
        for sql in work::load() {
            ours.with(Role::Writer, move |stream| Ok(writer(stream)?.execute_batch(&sql)?))?;
        }
        ours.wait_for_folds();
        Ok(ours)
    }

    /// Runs `body` with a stream in a coroutine of the database's core.
    fn with<T: Send + 'static>(
        &self,
        role: Role,
        body: impl FnOnce(&mut Stream) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let ran = self.runtime.block_on(self.handle.run(&self.name, move |stream| {
            stream.connection(role).map_err(|error| anyhow!("{error:?}"))?;
            body(stream)
        }));
        ran.map_err(|error: JobError| anyhow!("{error:?}"))?
    }

    pub fn run(&self, work: Work, first_key: u64, count: u64) -> anyhow::Result<Spent> {
        let role = if work.writes() { Role::Writer } else { Role::Reader };
        let spent = self.with(role, move |stream| match work {
            Work::SelectText | Work::UpdateText => work::timed(|| from_text(stream, work, first_key, count)),
            _ => {
                let connection = &stream.connection(role).map_err(|error| anyhow!("{error:?}"))?.sql;
                Ok(work::timed(|| work::run(connection, work, first_key, count))?)
            }
        })?;
        if work.writes() {
            self.wait_for_folds();
        }
        Ok(spent)
    }

    /// The other side's turn is not to pay for our folds: they run beside what made them, on other threads.
    fn wait_for_folds(&self) {
        let overlays = &self.handle.context.overlays;
        let mut before = usize::MAX;
        while overlays.bytes() < before {
            before = overlays.bytes();
            clock::pause(Duration::from_millis(20));
        }
    }

    pub fn check(&self) -> anyhow::Result<()> {
        let told = self.with(Role::Reader, |stream| {
            let connection = &stream.connection(Role::Reader).map_err(|error| anyhow!("{error:?}"))?.sql;
            Ok(connection.query_row(work::CHECK, [], |row| row.get::<_, String>(0))?)
        })?;
        ensure!(told == "ok", "integrity_check: {told}");
        Ok(())
    }
}

fn writer(stream: &mut Stream) -> anyhow::Result<&rusqlite::Connection> {
    Ok(&stream.connection(Role::Writer).map_err(|error| anyhow!("{error:?}"))?.sql)
}

/// As requests of a client: text and arguments in, rows out.
fn from_text(stream: &mut Stream, work: Work, first_key: u64, count: u64) -> anyhow::Result<i64> {
    let text = if work.writes() { work::UPDATE } else { work::SELECT };
    let mut sum = 0;
    for key in work::keys(first_key, count) {
        let stmt = Stmt {
            sql: SqlSource { sql: Some(text.to_owned()), sql_id: None },
            args: vec![Value::Integer(key)],
            named_args: Vec::new(),
            want_rows: true,
            replication_index: None,
        };
        let results = stream.pipeline(&[StreamRequest::Execute { stmt }], HranaVersion::Hrana3);
        let mut results = results.map_err(|error| anyhow!("{error}"))?;
        match results.pop() {
            Some(Ok(StreamResponse::Execute { result })) if work.writes() => sum += result.affected_row_count as i64,
            Some(Ok(StreamResponse::Execute { result })) => sum += result.rows.count() as i64,
            other => return Err(anyhow!("{other:?}")),
        }
    }
    Ok(sum)
}
