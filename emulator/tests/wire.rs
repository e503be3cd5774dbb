//! The emulator as a client sees it: everything here goes through the official S3 client and real sockets.

#![allow(clippy::result_large_err, reason = "the client's own error types")]

#[path = "wire/client.rs"]
mod client;
#[path = "wire/conditions.rs"]
mod conditions;
#[path = "wire/counting.rs"]
mod counting;
#[path = "wire/faults.rs"]
mod faults;
#[path = "wire/holds.rs"]
mod holds;
#[path = "wire/listing.rs"]
mod listing;
#[path = "wire/objects.rs"]
mod objects;
#[path = "wire/proxy.rs"]
mod proxy;
#[path = "wire/server.rs"]
mod server;
