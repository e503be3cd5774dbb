//! The **disk cache**: stored bytes of packs and page map chunks in one file of the local disk.
//!
//! A read asks memory ([`crate::cache`]), then here, then the bucket. What is kept are stretches of immutable objects,
//! as they are in the bucket, each under a [`CacheKey`] that says what its bytes are: object, offset, length and
//! checksum. So nothing is ever invalidated, and losing any part of the file costs time only.
//!
//! # Nothing in the file is trusted
//! Nothing is synced, and the file may be damaged, cut off, deleted, or written by another life of the node. Every read
//! compares the whole key that stands before the bytes with the one that was asked for, and their checksum with the
//! key's ([`slot`]). What differs is a miss, counted as damaged. So a page of one database can't be served as another's.
//!
//! # The file
//! It is divided into **regions** of equal length ([`Geometry`]), each filled from its start with **batches**
//! ([`batch`]): entries that were gathered in memory and are written with one large aligned write. A batch begins with a
//! header and ends with a directory of what is in it. After a restart the index is rebuilt from headers and directories
//! alone, in the background ([`scan`]); until it has come by, an entry is a miss.
//!
//! ```text
//!   put ──▶ open batch ──full, or a second old──▶ writing ──▶ region
//!                 └──────────── get reads all three ────────────┘
//! ```
//!
//! # Eviction
//! The oldest region goes first, as a whole, so the disk sees large writes only, and no free space has to be searched
//! for. What was read from it since it was written is put in again, up to three quarters of a region: so there always is
//! room for new entries, at the cost of at most four times the writes, and what is read again and again survives any number of databases that are scanned once. That is also the
//! floor under a tenant: another's scan pushes out what nobody has asked for again, never the working set.
//!
//! # Failures
//! A disk that is full or fails makes the cache smaller or absent for a while ([`health`]), never a query fail. Entries
//! that the disk is too slow to take are dropped.

mod batch;
mod cache;
mod counters;
pub mod file;
mod geometry;
mod health;
mod index;
mod key;
mod placement;
mod scan;
mod slot;

pub use cache::DiskCache;
pub use counters::Counters;
pub use geometry::Geometry;
pub use key::CacheKey;
