//! Sockets: accept, serve HTTP/1.1 and h2c, and end gracefully.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{debug, warn};
use walstore::seam::Seam;

/// How long open requests may take to end after a stop was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// A client has so long to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Binds a listening socket; the error names the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Serves `router` until `stop` turns true, then lets open requests end.
pub async fn serve(listener: TcpListener, router: Router, seam: Seam, mut stop: watch::Receiver<bool>) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors, or a peer that left already: others can still be served.
                warn!(%error, "cannot accept a connection");
                seam.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = server.serve_connection_with_upgrades(TokioIo::new(socket), service).into_owned();
        let watched = graceful.watch(connection);
        seam.spawn(async move {
            if let Err(error) = watched.await {
                debug!(error = %error, "a connection ended with an error");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = seam.sleep(GRACE) => warn!("some requests did not end in time and are cut off"),
    }
}
