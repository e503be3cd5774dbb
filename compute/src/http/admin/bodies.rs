//! Bodies of requests: JSON, or nothing.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::BODY_BYTES_MAX;
use crate::http::body::read_body;
use crate::http::failure;

/// An answer to a request that cannot be served as it is written.
pub fn invalid(text: &str) -> Box<Response> {
    Box::new(failure(StatusCode::BAD_REQUEST, text, "SHOAL_INVALID"))
}

/// Reads a body of JSON. An empty one says nothing.
pub async fn read_json<T: DeserializeOwned + Default>(body: Body) -> Result<T, Box<Response>> {
    let body = read_body(body, BODY_BYTES_MAX).await.map_err(Box::new)?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| invalid(&format!("the body is not what this request takes: {error}")))
}
