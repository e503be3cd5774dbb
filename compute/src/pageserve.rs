//! `shoal pageserver`: the background work without SQL. It drains the logs of nodes that are over, sweeps
//! the bucket, makes packs for the folds of nodes that ask for it (`shoal serve --page-server`), and serves pages of any
//! database: as of any commit that is folded and kept from a cache of its own, and as of later ones that are durable by
//! asking the owner, if that has an address (`--advertise-url`). If it is told to, it reads what is at rest for damage.
//!
//! It owns nothing and has no record in the bucket, so it can be started, stopped and killed at any time: every step of
//! a drain is a CAS that others may win, or a delete of what nobody can reach.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use futures_util::future::LocalBoxFuture;
use pageserver::drain::Drainer;
use pageserver::fetcher::Fetcher;
use pageserver::service::client::GrpcPeers;
use pageserver::service::owners::OwnersElsewhere;
use pageserver::service::packs::PackBuilder;
use pageserver::service::pages::PageReader;
use pageserver::scrub::Scrubber;
use pageserver::service::server::PageServer;
use pageserver::sweep::Sweeper;
use segments::cache::PageCache;
use tokio::sync::watch;
use tracing::info;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::{self, StoreUrl};

use crate::cli::config::ServeConfig;
use crate::http::{data, listen};
use crate::limits;
use crate::serve::{FETCH_SHARE, Signals};

/// The part of `--memory` that packs may take that are being made for others.
const ORDERS_SHARE: usize = 2;

/// How often what is done, besides the sweeps, which nodes have in common with a page server. Zero: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    pub drain: Duration,
    pub scrub: Duration,
}

/// Runs until a signal comes.
pub fn run(config: &ServeConfig, intervals: Intervals) -> LocalBoxFuture<'_, anyhow::Result<ExitCode>> {
    Box::pin(run_until_signal(config, intervals))
}

async fn run_until_signal(config: &ServeConfig, intervals: Intervals) -> anyhow::Result<ExitCode> {
    let is_too_short = !intervals.scrub.is_zero() && intervals.scrub < pageserver::limits::SCRUB_INTERVAL_MIN;
    anyhow::ensure!(!is_too_short, "--scrub-interval is 1h at least, or 0s for never");
    let seam = Seam::production();
    let listener = listen::bind(config.http_listen_addr).await?;
    let store_url = StoreUrl::parse(&config.store)?;
    let store = store::open(&store_url, false).await.context("cannot open the store")?;
    crate::cluster::prepare(&*store, &seam).await.context("cannot use the store")?;
    let stores = Stores::one(store.clone());
    // Nobody's: a drainer leaves the log of its own node alone, and this process has none.
    let me = IncarnationId::random(&seam);
    let fetch_bytes_max = (config.memory.as_usize() / FETCH_SHARE).min(limits::FETCH_BYTES_MAX);
    let orders_bytes_max = config.memory.as_usize() / ORDERS_SHARE;
    let cache = PageCache::new((config.memory.as_usize() - fetch_bytes_max - orders_bytes_max) as u64);
    let fetcher = Fetcher::new(store.clone(), seam.clone(), cache, fetch_bytes_max);
    let packs = PackBuilder::new(store.clone(), seam.clone(), fetcher.clone(), orders_bytes_max);
    let owners = OwnersElsewhere::new(GrpcPeers::new(seam.clone()), store.clone(), seam.clone());
    let pages = PageReader::new(store.clone(), seam.clone(), fetcher.clone()).asking(Arc::new(owners));
    let pages = PageServer::new(None, Arc::new(pages)).with_packs(Arc::new(packs));
    let router = Router::new().route("/health", get(|| async {})).merge(data::peers_router(pages));
    let mut signals = Signals::listen();
    info!(http_addr = %listener.local_addr()?, store = store.describe(), "serving pages");
    let (stop, stopped) = watch::channel(false);
    let sweep_interval = config.sweep_interval.as_duration();
    let drain = Drainer::new(me, stores.clone(), seam.clone(), &fetcher).run(intervals.drain);
    let sweep = Sweeper::new(me, stores.clone(), seam.clone(), &fetcher).run(sweep_interval);
    if !intervals.scrub.is_zero() {
        // Beside this task: a pack is checked for long.
        seam.spawn(Scrubber::new(stores, seam.clone(), &fetcher, intervals.scrub).run());
    }
    let until_stopped = async {
        signals.received().await;
        info!("stopping");
        let _ = stop.send(true);
    };
    let serving = async {
        tokio::join!(listen::serve(listener, router, seam.clone(), stopped), until_stopped);
    };
    tokio::select! {
        () = serving => {}
        // Endless: what is half done when the process ends, the next one goes on with.
        () = drain, if !intervals.drain.is_zero() => {}
        () = sweep, if !sweep_interval.is_zero() => {}
    }
    Ok(ExitCode::SUCCESS)
}
