//! The nodes as clients see them: addresses that may answer, hang, or refuse the connection.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use compute::error::error_body;
use compute::http::data;
use compute::import::job::{self, Progress};
use compute::context::NodeContext;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tower::ServiceExt;

use crate::machine::{MachineClock, Pause};
use crate::past::files::SqliteFile;

/// A client gives up on an answer after this time.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

/// A running node.
#[derive(Clone)]
pub struct Server {
    pub data: Router,
    pub admin: Router,
    pub pause: Arc<Pause>,
    pub clock: Arc<MachineClock>,
    pub context: Arc<NodeContext>,
    /// Turns true when the process has died: connections break.
    pub is_dead: watch::Receiver<bool>,
    /// Has it die at once.
    pub crash: Option<mpsc::UnboundedSender<()>>,
}

/// What a client hears of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200, with this body.
    Done(Value),
    /// It was not carried out, for sure.
    Refused(String),
    /// No answer, or one that says that nobody knows.
    Unknown(String),
}

/// What a node says that has no memory left.
const NO_MEMORY: &[u8] = b"no memory left (--memory)";

/// The addresses. `None` where nothing listens.
#[derive(Default)]
pub struct Cluster {
    servers: RefCell<Vec<Option<Server>>>,
    /// Answers that say that there was no memory for a transaction.
    pub out_of_memory: Cell<u64>,
}

impl Cluster {
    pub fn new(size: usize) -> Self {
        Self { servers: RefCell::new(vec![None; size]), out_of_memory: Cell::new(0) }
    }

    pub fn size(&self) -> usize {
        self.servers.borrow().len()
    }

    pub fn server(&self, at: usize) -> Option<Server> {
        self.servers.borrow()[at].clone()
    }

    pub fn set(&self, at: usize, server: Option<Server>) {
        self.servers.borrow_mut()[at] = server;
    }

    /// `POST /db/<database>/v3/pipeline` to the node at `at`.
    pub async fn pipeline(&self, at: usize, database: &str, baton: Option<&str>, requests: &Value) -> Answer {
        self.pipeline_at_least(at, database, baton, requests, 0).await
    }

    /// The same, asking for at least this LSN.
    pub async fn pipeline_at_least(
        &self,
        at: usize,
        database: &str,
        baton: Option<&str>,
        requests: &Value,
        lsn: u64,
    ) -> Answer {
        let body = json!({"baton": baton, "requests": requests}).to_string();
        let request = Request::post(format!("/db/{database}/v3/pipeline")).header(data::MIN_LSN_HEADER, lsn);
        let request = request.body(Body::from(body)).unwrap();
        self.send(at, request, |server| server.data).await
    }

    /// An administration request.
    pub async fn admin(&self, at: usize, method: &str, path: String) -> Answer {
        self.admin_with(at, method, path, &Value::Null).await
    }

    /// The same with a body, unless that is null.
    pub async fn admin_with(&self, at: usize, method: &str, path: String, body: &Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        self.send(at, request, |server| server.admin).await
    }

    /// Has the node make a file a database: what it does once it has received and checked one.
    pub async fn import(&self, at: usize, name: &str, file: Arc<SqliteFile>) -> Answer {
        let Some(server) = self.server(at) else { return Answer::Refused("connection refused".into()) };
        let (context, checked, mut is_dead) = (server.context.clone(), file.checked(name), server.is_dead.clone());
        let (sender, stored) = oneshot::channel();
        server.context.seam.spawn(async move {
            let _ = sender.send(job::store(&context, &checked, &*file, &Progress::default()).await);
        });
        tokio::select! {
            biased;
            _ = is_dead.wait_for(|is_dead| *is_dead) => Answer::Unknown("connection reset".into()),
            stored = server.pause.obeyed_by(stored) => match stored {
                Ok(Ok(lsn)) => Answer::Done(json!({ "lsn": lsn })),
                Ok(Err(error)) => {
                    let body = serde_json::from_slice(&error_body(&error.message, error.fault.code())).unwrap();
                    if says_unknown(&body) { Answer::Unknown(body.to_string()) } else { Answer::Refused(body.to_string()) }
                }
                Err(_) => Answer::Unknown("the import was cut off".into()),
            },
            () = sleep(CLIENT_PATIENCE) => Answer::Unknown("the client has waited long enough".into()),
        }
    }

    async fn send(&self, at: usize, request: Request<Body>, plane: fn(Server) -> Router) -> Answer {
        let server = self.servers.borrow()[at].clone();
        let Some(server) = server else { return Answer::Refused("connection refused".into()) };
        let (pause, mut is_dead) = (server.pause.clone(), server.is_dead.clone());
        let router = plane(server);
        let answer = pause.obeyed_by(async move {
            let response = router.oneshot(request).await.unwrap();
            let (is_ok, shown) = (response.status().is_success(), Shown::of(response.headers()));
            (is_ok, response.into_body().collect().await.unwrap().to_bytes(), shown)
        });
        tokio::select! {
            biased;
            _ = is_dead.wait_for(|is_dead| *is_dead) => Answer::Unknown("connection reset".into()),
            (is_ok, body, shown) = answer => {
                if body.windows(NO_MEMORY.len()).any(|part| part == NO_MEMORY) {
                    self.out_of_memory.set(self.out_of_memory.get() + 1);
                }
                classify(is_ok, &body, shown)
            }
            () = sleep(CLIENT_PATIENCE) => Answer::Unknown("the client has waited long enough".into()),
        }
    }
}

/// What the headers of an answer say. It is put into the answer's body.
struct Shown {
    lsn: Option<u64>,
    staleness_millis: Option<u64>,
}

impl Shown {
    fn of(headers: &HeaderMap) -> Self {
        let number = |name| headers.get(name).map(|value| value.to_str().unwrap().parse().unwrap());
        Self { lsn: number(data::LSN_HEADER), staleness_millis: number(data::STALENESS_HEADER) }
    }
}

fn classify(is_ok: bool, body: &[u8], shown: Shown) -> Answer {
    let mut body = serde_json::from_slice(body).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(body)));
    match is_ok {
        true => {
            if let (true, Some(lsn)) = (body.is_object(), shown.lsn) {
                body["lsn"] = lsn.into();
                body["staleness_millis"] = shown.staleness_millis.into();
            }
            Answer::Done(body)
        }
        // An error for the whole request may leave its outcome open; then it says so.
        false if says_unknown(&body) => Answer::Unknown(body.to_string()),
        false => Answer::Refused(body.to_string()),
    }
}

/// Whether an answer leaves the outcome open. Every other error promises that nothing was done.
pub fn says_unknown(body: &Value) -> bool {
    body.to_string().contains("SHOAL_OUTCOME_UNKNOWN")
}

#[expect(clippy::disallowed_methods, reason = "clients of the simulated world wait on its virtual clock")]
pub async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}
