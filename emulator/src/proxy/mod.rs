//! A proxy between a program and an S3 store, whichever that is, which does to requests what networks and
//! stores do on bad days.
//!
//! The emulator has faults of its own; the proxy brings them to real stores, and adds those that need a second
//! connection: requests that arrive twice, or again much later. It passes `Host` and signatures through, so
//! that a store which checks them is content.

mod faults;
mod pass;
mod upstream;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::response::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::{Body, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

pub use self::faults::{ProxyFault, ProxyFaults};
use self::upstream::Upstream;

/// A running proxy, on a thread of its own. Dropping it stops it.
#[must_use = "dropping a proxy stops it"]
pub struct Proxy {
    address: SocketAddr,
    faults: ProxyFaults,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// What all requests share.
struct Shared {
    faults: ProxyFaults,
    upstream: Upstream,
    /// The last answer to each listing.
    listings: Mutex<BTreeMap<String, (Parts, Bytes)>>,
}

impl Shared {
    fn earlier(&self, uri: &str) -> Option<HttpResponse> {
        let listings = self.listings.lock().expect("BUG: a request panicked");
        let (head, body) = listings.get(uri)?.clone();
        Some(HttpResponse::from_parts(head, Body::from(body)))
    }

    fn keep(&self, uri: String, head: Parts, body: Bytes) {
        self.listings.lock().expect("BUG: a request panicked").insert(uri, (head, body));
    }
}

impl Proxy {
    /// Starts a proxy before the store at `upstream`. The seed determines the faults that are left to chance,
    /// in the order of arrival.
    ///
    /// # Errors
    /// When no port can be listened on or the thread cannot be started.
    pub fn start(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let address = listener.local_addr()?;
        let faults = ProxyFaults::new(seed);
        let shared = Shared { faults: faults.clone(), upstream: Upstream::new(upstream), listings: Mutex::default() };
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let run = move || {
            runtime.block_on(async move {
                tokio::select! {
                    never = accept(Arc::new(shared), listener) => match never {},
                    // The sender is dropped with the proxy; tasks end with the runtime.
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(run)?;
        Ok(Self { address, faults, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The switches for faults.
    pub fn faults(&self) -> &ProxyFaults {
        &self.faults
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the proxy's thread panicked");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a remote party is not simulated through the seam")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(spawn(serve(Arc::clone(&shared), stream))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let resets = Arc::new(AtomicBool::new(false));
    let service = {
        let resets = Arc::clone(&resets);
        service_fn(move |request| pass::pass(Arc::clone(&shared), request, Arc::clone(&resets)))
    };
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = (&mut connection).await {
        tracing::debug!(%error, "a connection ended");
    }
    if resets.load(Ordering::Relaxed) {
        let stream = connection.into_parts().io.into_inner();
        if let Err(error) = stream.set_zero_linger() {
            tracing::debug!(%error, "cannot reset a connection");
        }
    }
}
