//! The way from the proxy to the store.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::request::Parts;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use s3s::{Body, HttpResponse};
use tokio::net::TcpStream;

type Connection = SendRequest<Full<Bytes>>;

/// Connections to the store, kept for later requests.
pub(super) struct Upstream {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

impl Upstream {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// Sends a request as it came, with its `Host` and its signature, and reads the whole answer.
    pub async fn send(&self, head: &Parts, body: Bytes) -> io::Result<HttpResponse> {
        loop {
            let kept = self.idle.lock().expect("BUG: a request panicked").pop();
            let (mut connection, is_kept) = match kept {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.send_request(request(head, body.clone())).await {
                Ok(answer) => {
                    let answer = read(answer).await?;
                    self.idle.lock().expect("BUG: a request panicked").push(connection);
                    return Ok(answer);
                }
                // The store has closed a connection that was not in use: nothing was sent.
                Err(error) if is_kept && error.is_canceled() => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a remote party is not simulated through the seam")]
    async fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        drop(tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to the store ended");
            }
        }));
        Ok(connection)
    }
}

fn request(head: &Parts, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    request
}

async fn read(answer: http::Response<hyper::body::Incoming>) -> io::Result<HttpResponse> {
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    // These are about the connection that they came on.
    head.headers.remove(CONNECTION);
    head.headers.remove(TRANSFER_ENCODING);
    Ok(HttpResponse::from_parts(head, Body::from(body)))
}
