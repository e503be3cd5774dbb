//! The gRPC client: plain HTTP/2 without TLS, one connection for each address, shared by all subscriptions.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::client::Grpc;
pub use tonic::{Code, Status};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;
use walstore::id::DatabaseId;
use walstore::seam::Seam;

use super::SERVICE;
use super::follow::{self, Ending, Peers, Publisher, Start, Subscription};
use super::messages::{
    FollowNotice, FollowRequest, FollowRequestKind, PackMade, PackPiece, PackPieceKind, PagesReply, PagesRequest,
};
use super::packs::{MakePacks, OrderRefused, OrderStart};
use crate::limits;

/// Reaches other nodes by gRPC. Cheap to clone.
#[derive(Clone)]
pub struct GrpcPeers {
    client: Arc<Client<HttpConnector, Body>>,
    seam: Seam,
}

impl GrpcPeers {
    pub fn new(seam: Seam) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).http2_only(true);
        // A peer whose machine is gone says nothing: pings find out.
        builder.http2_keep_alive_interval(limits::PING_INTERVAL).http2_keep_alive_timeout(limits::PING_INTERVAL);
        Self { client: Arc::new(builder.build(connector)), seam }
    }

    fn grpc(&self, address: &str) -> Result<Grpc<Client<HttpConnector, Body>>, Status> {
        let origin = address.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"));
        let origin = origin.ok_or_else(|| Status::unavailable(format!("`{address}` is no address of the form http://host:port")))?;
        let grpc = Grpc::with_origin((*self.client).clone(), origin);
        Ok(grpc.max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
    }

    /// Pages of a database as of a commit (0: the last one that is folded).
    pub async fn pages(&self, address: &str, database: DatabaseId, lsn: u64, pages: Vec<u32>) -> Result<PagesReply, Status> {
        let database = Bytes::copy_from_slice(database.as_bytes());
        let request = Request::new(PagesRequest { database, lsn, pages });
        let mut grpc = self.grpc(address)?;
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let reply = grpc.unary(request, path("Pages"), ProstCodec::<PagesRequest, PagesReply>::default()).await;
        reply.map(tonic::Response::into_inner)
    }

    async fn open(&self, address: &str, start: &Start, ticks: mpsc::Receiver<u64>) -> Result<Streaming<FollowNotice>, Status> {
        let first = FollowRequest { kind: Some(FollowRequestKind::Start(start.into())) };
        let ticks = stream::unfold(ticks, |mut ticks| async move {
            let tick = ticks.recv().await?;
            Some((FollowRequest { kind: Some(FollowRequestKind::Tick(tick)) }, ticks))
        });
        let requests = stream::once(async { first }).chain(ticks);
        let mut grpc = self.grpc(address)?;
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<FollowRequest, FollowNotice>::default();
        let notices = grpc.streaming(Request::new(requests), path("Follow"), codec).await;
        notices.map(tonic::Response::into_inner)
    }
}

fn path(method: &str) -> PathAndQuery {
    let path = format!("/{SERVICE}/{method}");
    path.parse().expect("BUG: the service's name is a path")
}

#[async_trait]
impl Peers for GrpcPeers {
    async fn follow(&self, address: &str, start: Start) -> Result<Subscription, Ending> {
        let (tick_sender, ticks) = mpsc::channel(limits::FOLLOW_TICKS_MAX);
        let notices = self.open(address, &start, ticks).await.map_err(Ending::from)?;
        let (subscription, publisher) = follow::channel();
        self.seam.spawn(pump(notices, publisher, tick_sender));
        Ok(subscription)
    }
}

#[async_trait]
impl MakePacks for GrpcPeers {
    async fn make_pack(&self, address: &str, order: Bytes, pages: usize) -> Result<(), OrderRefused> {
        let start = PackPieceKind::Start(OrderStart::of(&order, pages).into());
        let pieces = (0..order.len()).step_by(limits::ORDER_PIECE_BYTES).map(move |from| {
            PackPieceKind::Bytes(order.slice(from..order.len().min(from + limits::ORDER_PIECE_BYTES)))
        });
        let pieces = std::iter::once(start).chain(pieces).map(|kind| PackPiece { kind: Some(kind) });
        let mut grpc = self.grpc(address)?;
        grpc.ready().await.map_err(|error| OrderRefused::Failed(error.to_string()))?;
        let codec = ProstCodec::<PackPiece, PackMade>::default();
        grpc.client_streaming(Request::new(stream::iter(pieces)), path("MakePack"), codec).await?;
        Ok(())
    }
}

/// Carries what comes from the wire to the subscription, and its ticks back.
async fn pump(mut notices: Streaming<FollowNotice>, mut publisher: Publisher, ticks: mpsc::Sender<u64>) {
    let ending = loop {
        tokio::select! {
            biased;
            tick = publisher.tick() => match tick {
                Some(tick) => drop(ticks.try_send(tick)),
                None => return,
            },
            notice = notices.message() => match notice {
                Ok(Some(notice)) => match notice.check() {
                    Ok(Some(notice)) => if !publisher.send(notice).await { return },
                    Ok(None) => {}
                    Err(ending) => break ending,
                },
                Ok(None) => break Ending::Broken("the stream ended without a reason".into()),
                Err(status) => break status.into(),
            },
        }
    };
    publisher.end(ending);
}
