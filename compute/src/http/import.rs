//! Files that become databases, over the administration plane. `shoal db import` is the client.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/namespaces/<name>/import` | `{}`: the name can be had; 409 if it is taken |
//! | `POST /v1/namespaces/<name>/import?bytes=&blake3=` | `{"received":…,"part_bytes":…}`: where to go on; 409 if the name is taken |
//! | `PUT /v1/namespaces/<name>/import?bytes=&blake3=&offset=` | a part: `{"received":…}`; 409 if its place is elsewhere |
//! | `POST /v1/namespaces/<name>/import/finish?bytes=&blake3=` | 202 `{"state":"checking"}` or `{"state":"storing","done":…,"of":…}`: ask again; 200 `{"state":"done","lsn":…}`; 400: refused, and why |
//!
//! The file has pages of 4096 bytes, no reserved ones, and is not in WAL mode. Length and hash, which each request
//! repeats, say which file is meant.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tenant::name::Name;
use tenant::registry;
use walstore::register::Patience;

use super::body::read_lent_body;
use super::{Parameters, freed, going_down, server_failure};
use crate::context::BodyLoan;
use crate::error::{Fault, ServerError};
use crate::import::job::{self, Progress, Stage};
use crate::import::staging::{self, Upload};
use crate::import::{Busy, Imports};
use crate::limits;
use crate::node::NodeHandle;

/// How long a request waits for the end of a job before it says how far it is.
const WAIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(15);

struct Plane {
    node: NodeHandle,
    imports: Imports,
}

/// The routes of imports.
pub fn router(node: NodeHandle) -> Router {
    let plane = Arc::new(Plane { node, imports: Imports::default() });
    Router::new()
        .route("/v1/namespaces/{name}/import", post(begin).put(part).get(ask))
        .route("/v1/namespaces/{name}/import/finish", post(finish))
        .with_state(plane)
}

#[derive(Deserialize)]
struct Which {
    bytes: u64,
    blake3: String,
    #[serde(default)]
    offset: u64,
}

impl Which {
    fn upload(&self, name: &str) -> Result<Upload, ServerError> {
        let name = Name::parse(name).map_err(|error| ServerError::new(Fault::Invalid, error.to_string()))?;
        Upload::new(name, self.bytes, &self.blake3)
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    super::json(status, body.to_string())
}

type Answer = Result<Response, ServerError>;

async fn begin(
    State(plane): State<Arc<Plane>>,
    Path(name): Path<String>,
    Parameters(which): Parameters<Which>,
) -> Response {
    begin_upload(&plane, &name, &which).await.unwrap_or_else(|error| server_failure(&error))
}

async fn begin_upload(plane: &Plane, name: &str, which: &Which) -> Answer {
    let upload = which.upload(name)?;
    let context = &plane.node.context;
    if let Err(Busy::Job(running, progress)) = plane.imports.take(&upload.name) {
        // It has all of the file already.
        if running == upload && !progress.has_ended() {
            return Ok(received(upload.bytes));
        }
        plane.imports.forget(&upload.name);
    }
    check_is_free(&plane.node, &upload.name).await?;
    let _exclusive = plane.imports.take(&upload.name).map_err(|_| busy())?;
    let there = staging::begin(&plane.imports, &upload, &context.settings.temp_directory, context.seam.wall_micros())?;
    Ok(received(there))
}

/// Refuses a name that leads to a database, unless the time of that is up.
async fn check_is_free(node: &NodeHandle, name: &Name) -> Result<(), ServerError> {
    let context = &node.context;
    let patience = Patience::for_duration(&context.seam, PATIENCE);
    let found = registry::resolve_head(&*context.stores.main, &context.seam, name, context.id, patience).await?;
    match found.is_none() || freed(node, name).await? {
        true => Ok(()),
        false => Err(ServerError::new(Fault::Conflict, format!("there is a database `{name}` already"))),
    }
}

/// For who has to convert a file before he can say which one it is.
async fn ask(State(plane): State<Arc<Plane>>, Path(name): Path<String>) -> Response {
    let asked = async {
        let name = Name::parse(&name).map_err(|error| ServerError::new(Fault::Invalid, error.to_string()))?;
        check_is_free(&plane.node, &name).await?;
        Ok(answer(StatusCode::OK, &json!({})))
    };
    asked.await.unwrap_or_else(|error: ServerError| server_failure(&error))
}

fn received(bytes: u64) -> Response {
    answer(StatusCode::OK, &json!({ "received": bytes, "part_bytes": limits::IMPORT_PART_BYTES }))
}

fn busy() -> ServerError {
    ServerError::new(Fault::Retry, "another request is at work on this import; try again")
}

async fn part(
    State(plane): State<Arc<Plane>>,
    Path(name): Path<String>,
    Parameters(which): Parameters<Which>,
    body: Body,
) -> Response {
    let mut loan = BodyLoan::new(&plane.node.context);
    let part = match read_lent_body(body, limits::IMPORT_PART_BYTES, &mut loan).await {
        Ok(part) => part,
        Err(response) => return response,
    };
    let added = async {
        let upload = which.upload(&name)?;
        let (offset, taken) = (which.offset, plane.clone());
        // To the end, also if the client goes away meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            let _exclusive = taken.imports.take(&upload.name).map_err(|_| busy())?;
            let context = &taken.node.context;
            let directory = &context.settings.temp_directory;
            // Anew, if nothing was heard of it for so long that others may have its room.
            let there = staging::received(&upload, directory)?;
            staging::promise(&taken.imports, &upload, there, directory, context.seam.wall_micros())?;
            let received = staging::append(&upload, directory, offset, &part)?;
            staging::promise(&taken.imports, &upload, received, directory, context.seam.wall_micros())?;
            Ok::<u64, ServerError>(received)
        });
        written.await.map_err(|_| going_down())?.map(received)
    };
    added.await.unwrap_or_else(|error| server_failure(&error))
}

async fn finish(
    State(plane): State<Arc<Plane>>,
    Path(name): Path<String>,
    Parameters(which): Parameters<Which>,
) -> Response {
    finish_upload(&plane, &name, &which).await.unwrap_or_else(|error| server_failure(&error))
}

async fn finish_upload(plane: &Plane, name: &str, which: &Which) -> Answer {
    let upload = which.upload(name)?;
    let progress = match plane.imports.take(&upload.name) {
        Err(Busy::Job(running, progress)) if running == upload => progress,
        Err(_) => return Err(busy()),
        Ok(exclusive) => {
            let context = plane.node.context.clone();
            let there = staging::received(&upload, &context.settings.temp_directory)?;
            if there != upload.bytes {
                let text = format!("{there} of {} bytes are here; send the rest first", upload.bytes);
                return Err(ServerError::new(Fault::Conflict, text));
            }
            let progress = Arc::new(Progress::default());
            if !exclusive.hand_over(upload.clone(), progress.clone()) {
                return Err(ServerError::new(Fault::Retry, "this node imports as many files as it may; try again"));
            }
            context.seam.spawn(job::run(context.clone(), upload.clone(), progress.clone()));
            progress
        }
    };
    let seam = &plane.node.context.seam;
    tokio::select! {
        biased;
        () = progress.ended() => {}
        () = seam.sleep(WAIT) => {}
    }
    match progress.stage() {
        Stage::Checking => Ok(answer(StatusCode::ACCEPTED, &json!({ "state": "checking" }))),
        Stage::Storing { done, of } => {
            Ok(answer(StatusCode::ACCEPTED, &json!({ "state": "storing", "done": done, "of": of })))
        }
        // Told until another file comes for this name, since the answer may get lost.
        Stage::Done { lsn } => Ok(answer(StatusCode::OK, &json!({ "state": "done", "lsn": lsn }))),
        Stage::Failed(error) => {
            plane.imports.forget(&upload.name);
            Err(error)
        }
    }
}
