//! A node with its service, and page servers apart, in this process.

use std::sync::Arc;

use compute::core::Message;
use compute::hrana::HranaVersion;
use compute::hrana::request::{SqlSource, StreamRequest};
use compute::http::{data, listen};
use compute::node::{CoreThreads, Node, Settings};
use pageserver::fetcher::Fetcher;
use pageserver::service::client::GrpcPeers;
use pageserver::service::follow::{Peers, Start, Subscription};
use pageserver::service::owners::OwnersElsewhere;
use pageserver::service::packs::PackBuilder;
use pageserver::service::pages::PageReader;
use pageserver::service::server::PageServer;
use segments::cache::PageCache;
use tenant::name::Name;
use tokio::sync::{oneshot, watch};
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::{MemoryStore, Store};

pub struct Rig {
    pub node: Node,
    pub name: Name,
    pub database: DatabaseId,
    pub address: String,
    pub peers: GrpcPeers,
    pub stop: watch::Sender<bool>,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_on(Arc::new(MemoryStore::new()), Settings::default()).await
    }

    /// A node, and a new database.
    pub async fn start_on(store: Arc<dyn Store>, settings: Settings) -> Self {
        let mut rig = Self::start_beside(store, settings, DatabaseId::from_bytes([0; 16])).await;
        let (reply, created) = oneshot::channel();
        let message = Message::Create { name: rig.name.clone(), reply };
        rig.node.handle().send(&rig.name, message).expect("a node that runs");
        rig.database = created.await.expect("an answer").expect("created");
        rig
    }

    /// Another node, for a database that is there.
    pub async fn start_beside(store: Arc<dyn Store>, settings: Settings, database: DatabaseId) -> Self {
        let seam = Seam::production();
        let stores = Stores::one(store);
        let id = IncarnationId::random(&seam);
        let listener = listen::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let settings = Settings { cores: 1, address: address.clone(), ..settings };
        let node = Node::start(id, stores.clone(), seam.clone(), settings, &CoreThreads).await.expect("a node");
        let owner = Arc::new(node.handle());
        let reader = PageReader::new(stores.main, seam.clone(), node.context.fetcher.clone()).asking(owner.clone());
        let server = PageServer::new(Some(owner), Arc::new(reader));
        let (stop, stopped) = watch::channel(false);
        seam.spawn(listen::serve(listener, data::peers_router(server), seam.clone(), stopped));
        let name = Name::parse("app").expect("a name");
        Self { node, name, database, address, peers: GrpcPeers::new(seam), stop }
    }

    pub fn start_after(&self, after: u64) -> Start {
        let (database, name) = (self.database, self.name.clone());
        Start { database, name, incarnation: self.node.context.id, after: Lsn::new(after) }
    }

    pub async fn follow(&self, after: u64) -> Subscription {
        self.peers.follow(&self.address, self.start_after(after)).await.expect("a subscription")
    }

    pub async fn write(&self, sql: &str) {
        self.run(sql).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs statements with a stream of their own. Returns the last commit (raw) that it has seen.
    pub async fn run(&self, sql: &str) -> Result<u64, String> {
        let sql = SqlSource { sql: Some(sql.to_owned()), sql_id: None };
        let node = self.node.handle();
        let ran = node.run(&self.name, move |stream| {
            let results = stream.pipeline(&[StreamRequest::Sequence { sql }], HranaVersion::Hrana3);
            (results, stream.seen())
        });
        let (results, seen) = ran.await.map_err(|error| format!("{error:?}"))?;
        let results = results.map_err(|error| format!("{error:?}"))?;
        if results.iter().all(Result::is_ok) { Ok(seen) } else { Err(format!("{results:?}")) }
    }

    /// Has everything folded, and goes on. Comes to the last folded commit (raw).
    pub fn fold(&self) -> impl Future<Output = u64> + use<> {
        let (reply, folded) = oneshot::channel();
        let message = Message::FoldedHead { name: self.name.clone(), reply };
        self.node.handle().send(&self.name, message).expect("a node that runs");
        async { Lsn::raw(folded.await.expect("an answer").expect("folded").value.folded.lsn) }
    }

    pub async fn release(&self) {
        let (reply, released) = oneshot::channel();
        let message = Message::Release { name: self.name.clone(), reply };
        self.node.handle().send(&self.name, message).expect("a node that runs");
        released.await.expect("an answer").expect("released");
    }
}

/// A page server in this process, with a way to the bucket of its own. Its address.
pub async fn page_server(store: Arc<dyn Store>, seam: &Seam, stopped: watch::Receiver<bool>) -> String {
    let fetcher = Fetcher::new(store.clone(), seam.clone(), PageCache::new(1 << 20), 8 << 20);
    let owners = OwnersElsewhere::new(GrpcPeers::new(seam.clone()), store.clone(), seam.clone());
    let pages = PageReader::new(store.clone(), seam.clone(), fetcher.clone()).asking(Arc::new(owners));
    let server = PageServer::new(None, Arc::new(pages));
    let server = server.with_packs(Arc::new(PackBuilder::new(store, seam.clone(), fetcher, 64 << 20)));
    let listener = listen::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    seam.spawn(listen::serve(listener, data::peers_router(server), seam.clone(), stopped));
    address
}
