//! What the tests of the binary share: a server of their own each, and a client that shows what is on the wire.

#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod server;
mod wire;

pub use server::Server;
pub use wire::{
    Answer, Database, Stream, batch, close, error_of, execute, execute_with, get_autocommit, plain, post_to, request,
    rows_of, sequence, step, step_if,
};
