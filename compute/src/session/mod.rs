//! What a client's stream does to a database: connections, statements, streams.
//!
//! Everything here is plain synchronous code that runs inside a coroutine: wherever it waits for the
//! bucket or for its turn to write, the coroutine suspends underneath it.

pub mod arguments;
pub mod connection;
pub mod download;
pub mod execute;
pub mod output;
pub mod pool;
pub mod prepared;
pub mod stream;
pub(crate) mod text;
