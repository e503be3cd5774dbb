//! The gRPC service, without a server of its own: whoever listens hands requests of `/SERVICE/<method>` to
//! [`PageServer::call`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{self, Stream};
use futures_util::{FutureExt, StreamExt};
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::{ClientStreamingService, Grpc, StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::follow::{self, Publish};
use super::messages::{
    FollowNotice, FollowRequest, FollowRequestKind, PackMade, PackPiece, PackPieceKind, PagesReply, PagesRequest,
    database_id,
};
use super::packs::{Incoming, PackBuilder};
use super::pages::{PageReader, PagesError};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Pending<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

/// Serves pages, and what a node publishes. Cheap to clone.
#[derive(Clone)]
pub struct PageServer {
    /// `None`: this process owns no databases.
    publish: Option<Arc<dyn Publish>>,
    pages: Arc<PageReader>,
    /// `None`: this process makes no packs for others.
    packs: Option<Arc<PackBuilder>>,
}

impl PageServer {
    pub fn new(publish: Option<Arc<dyn Publish>>, pages: Arc<PageReader>) -> Self {
        Self { publish, pages, packs: None }
    }

    /// The same, and it makes packs for the folds of others.
    pub fn with_packs(self, packs: Arc<PackBuilder>) -> Self {
        Self { packs: Some(packs), ..self }
    }

    /// Answers one request.
    pub async fn call<B>(&self, method: &str, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Error> + Send,
    {
        match method {
            "Pages" => Grpc::new(ProstCodec::default()).unary(Pages(self.pages.clone()), request).await,
            "Follow" => Grpc::new(ProstCodec::default()).streaming(Follow(self.publish.clone()), request).await,
            "MakePack" => Grpc::new(ProstCodec::default()).client_streaming(Packs(self.packs.clone()), request).await,
            _ => Status::unimplemented(format!("there is no method `{method}`")).into_http(),
        }
    }
}

struct Pages(Arc<PageReader>);

impl UnaryService<PagesRequest> for Pages {
    type Response = PagesReply;
    type Future = Pending<PagesReply>;

    fn call(&mut self, request: tonic::Request<PagesRequest>) -> Self::Future {
        let pages = self.0.clone();
        async move {
            let PagesRequest { database, lsn, pages: numbers } = request.into_inner();
            let reply = pages.read(database_id(&database)?, lsn, &numbers).await;
            reply.map(tonic::Response::new).map_err(Status::from)
        }
        .boxed()
    }
}

impl From<PagesError> for Status {
    fn from(error: PagesError) -> Self {
        let text = error.to_string();
        match error {
            PagesError::NoSuchDatabase(_) => Self::not_found(text),
            PagesError::TooMany(_) | PagesError::NoPage => Self::invalid_argument(text),
            PagesError::NotKept { .. } | PagesError::NotDurable { .. } => Self::failed_precondition(text),
            PagesError::Elsewhere { .. } => Self::unavailable(text),
            PagesError::Damaged(_) => Self::data_loss(text),
            PagesError::NoRoom { .. } => Self::resource_exhausted(text),
            PagesError::Record(walstore::register::RecordError::Corrupt(_)) => Self::data_loss(text),
            PagesError::Record(_) => Self::unavailable(text),
        }
    }
}

struct Packs(Option<Arc<PackBuilder>>);

impl ClientStreamingService<PackPiece> for Packs {
    type Response = PackMade;
    type Future = Pending<PackMade>;

    fn call(&mut self, request: tonic::Request<Streaming<PackPiece>>) -> Self::Future {
        let packs = self.0.clone();
        async move {
            let packs = packs.ok_or_else(|| Status::unimplemented("this process makes packs for nobody else"))?;
            let order = tokio::select! {
                biased;
                order = receive(&packs, request.into_inner()) => order?,
                () = packs.patience() => return Err(Status::deadline_exceeded("the order does not arrive")),
            };
            packs.make(order).await?;
            Ok(tonic::Response::new(PackMade {}))
        }
        .boxed()
    }
}

async fn receive(packs: &PackBuilder, mut pieces: Streaming<PackPiece>) -> Result<Incoming, Status> {
    let Some(PackPieceKind::Start(start)) = pieces.message().await?.and_then(|first| first.kind) else {
        return Err(Status::invalid_argument("the first piece is a `start`"));
    };
    let mut order = packs.admit(start.into())?;
    while let Some(piece) = pieces.message().await? {
        match piece.kind {
            Some(PackPieceKind::Bytes(bytes)) => order.add(&bytes)?,
            _ => return Err(Status::invalid_argument("a piece without bytes")),
        }
    }
    Ok(order)
}

struct Follow(Option<Arc<dyn Publish>>);

impl StreamingService<FollowRequest> for Follow {
    type Response = FollowNotice;
    type ResponseStream = Notices;
    type Future = Pending<Notices>;

    fn call(&mut self, request: tonic::Request<Streaming<FollowRequest>>) -> Self::Future {
        let publish = self.0.clone();
        async move {
            let publish = publish.ok_or_else(|| Status::not_found("this process owns no databases"))?;
            let mut requests = request.into_inner();
            let first = requests.message().await?.and_then(|first| first.kind);
            let Some(FollowRequestKind::Start(start)) = first else {
                return Err(Status::invalid_argument("the first request is a `start`"));
            };
            let start = start.check()?;
            let (subscription, publisher) = follow::channel();
            publish.follow(start, publisher);
            Ok(tonic::Response::new(Notices::new(subscription, requests)))
        }
        .boxed()
    }
}

/// What goes to the follower. It also passes the follower's ticks on, so that both ends go together.
pub struct Notices(Pin<Box<dyn Stream<Item = Result<FollowNotice, Status>> + Send>>);

impl Notices {
    fn new(subscription: follow::Subscription, requests: Streaming<FollowRequest>) -> Self {
        let (notices, ending, ticks) = subscription.into_parts();
        let ticks = stream::unfold((requests, ticks), |(mut requests, ticks)| async move {
            while let Ok(Some(request)) = requests.message().await {
                if let Some(FollowRequestKind::Tick(tick)) = request.kind {
                    // Without room it is dropped: the answer to an earlier one is on its way.
                    let _ = ticks.try_send(tick);
                }
            }
            None::<(Option<Result<FollowNotice, Status>>, _)>
        });
        let notices = stream::unfold(Some((notices, ending)), |state| async move {
            let (mut notices, ending) = state?;
            if let Some(notice) = notices.recv().await {
                return Some((Ok(FollowNotice::from(notice)), Some((notices, ending))));
            }
            let ending = ending.await.map_or_else(|_| Status::unavailable("over"), Status::from);
            Some((Err(ending), None))
        });
        let both = stream::select(ticks, notices.map(Some).chain(stream::once(std::future::ready(None))));
        let until_the_end = both.take_while(|item| std::future::ready(item.is_some()));
        Self(Box::pin(until_the_end.filter_map(std::future::ready)))
    }
}

impl Stream for Notices {
    type Item = Result<FollowNotice, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}
