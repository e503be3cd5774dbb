//! Databases that are there, and what is told of those that are not.

use axum::response::Response;
use http::StatusCode;
use tenant::head::Head;
use tenant::name::Name;
use tenant::registry;
use walstore::register::Patience;

use super::{PATIENCE, refusal};
use crate::context::NodeContext;
use crate::core::OpenError;
use crate::error::ServerError;
use crate::http::failure;

/// The head of the database that has a name. One whose time is up is not there, whether or not it has been deleted yet.
pub async fn living(node: &NodeContext, name: &Name) -> Result<Head, Box<Response>> {
    let patience = Patience::for_duration(&node.seam, PATIENCE);
    let head = registry::resolve_head(&*node.stores.main, &node.seam, name, node.id, patience).await;
    let head = head.map_err(|error| refusal(ServerError::from(error).into()))?;
    match head.map(|head| head.value).filter(|head| !head.settings.is_expired(node.now_micros())) {
        Some(head) => Ok(head),
        None => Err(explained(node, OpenError::NoSuchDatabase(name.clone())).await),
    }
}

/// The answer to a request that was not carried out. Who asks for a database that is gone is told of what brings it back.
pub async fn explained(node: &NodeContext, error: OpenError) -> Box<Response> {
    let name = match error {
        OpenError::NoSuchDatabase(name) => name,
        OpenError::Server(_) => return refusal(error),
    };
    let patience = Patience::for_duration(&node.seam, PATIENCE);
    let text = match registry::read_name(&*node.stores.main, &node.seam, &name, patience).await {
        Ok(Some(_)) => format!(
            "there is no database `{name}` any more; `shoal db undelete {name}` brings it back, as long as its retention \
             allows"
        ),
        Ok(None) => format!("there is no database `{name}`; `shoal db list` tells which there are"),
        Err(_) => return refusal(OpenError::NoSuchDatabase(name)),
    };
    Box::new(failure(StatusCode::NOT_FOUND, &text, "SHOAL_NO_SUCH_DATABASE"))
}
