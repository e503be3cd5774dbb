//! Serving a download: see [`crate::session::download`].

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::jobs::as_of;
use super::open_database::OpenDatabase;
use super::running::Client;
use super::{Core, JobError, Shown};
use crate::session::download::Download;
use crate::session::stream::Stream;

/// Pieces that may wait for a slow client.
const PIECES_MAX: usize = 4;

/// A download that has begun.
pub struct DownloadReply {
    pub shown: Shown,
    /// How long it is, where that is known.
    pub bytes: Option<u64>,
    pub pieces: mpsc::Receiver<Bytes>,
    /// Told once all pieces are in `pieces`. If the sender is gone instead, the rest is missing.
    pub complete: oneshot::Receiver<()>,
}

impl Core {
    pub(super) async fn download(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        (id, mut stream): (u64, Stream),
        download: Download,
        head: oneshot::Sender<Result<DownloadReply, JobError>>,
    ) {
        let running = stream.running.clone();
        let head = Rc::new(RefCell::new(Some(head)));
        let body = move || (stream.begin_download(download), stream);
        let began = self.run(open, running.clone(), body, Client::of_reply(&head)).await;
        let reply = |answer| drop(head.borrow_mut().take().map(|head| head.send(answer)));
        let (begun, mut stream) = match began {
            Ok((Ok(begun), stream)) => (begun, stream),
            Ok((Err(error), stream)) => {
                reply(Err(error.into()));
                return self.end(open, id, stream).await;
            }
            Err(error) => return reply(Err(error.into())),
        };
        if let Err(error) = self.gate(open, stream.seen(), false).await {
            reply(Err(error.into()));
            return self.end(open, id, stream).await;
        }
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let (whole, complete) = oneshot::channel();
        let shown = self.shown(open, stream.seen(), as_of(open, &stream));
        reply(Ok(DownloadReply { shown, bytes: begun.bytes(), pieces, complete }));
        let client = Client::of_pieces(sender, &stream);
        let body = move || (stream.finish_download(begun), stream);
        let ran = self.run(open, running, body, client).await;
        match ran {
            Ok((Ok(()), stream)) => {
                let _ = whole.send(());
                self.end(open, id, stream).await;
            }
            Ok((Err(error), stream)) => {
                warn!(database = %open.database.name, ?download, %error, "broken off");
                self.end(open, id, stream).await;
            }
            // It has been logged.
            Err(_) => {}
        }
    }
}
