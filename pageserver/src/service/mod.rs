//! What a node serves to other nodes: pages, durable commits as they come, and packs made for them.
//!
//! | file | idea |
//! |---|---|
//! | [`follow`] | a subscription to a database's durable commits, whatever carries it |
//! | [`pages`] | pages as of a commit: folded and kept, or durable in the owner's memory |
//! | [`owners`] | the way to an owner, for what is not folded |
//! | [`packs`] | packs of other nodes' folds |
//! | [`messages`] | the messages on the wire (`proto/pageserver.proto`) |
//! | [`server`] | the gRPC service over these, to be mounted in an HTTP server |
//! | [`client`] | the other end |

pub mod client;
pub mod follow;
pub mod messages;
pub mod owners;
pub mod packs;
pub mod pages;
pub mod server;

/// The service's name in request paths: `/shoal.pageserver.v1.PageServer/<method>`.
pub const SERVICE: &str = "shoal.pageserver.v1.PageServer";
