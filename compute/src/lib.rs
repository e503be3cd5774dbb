#![doc = include_str!("../README.md")]

pub mod cli;
mod cluster;
pub mod context;
pub mod core;
pub mod database;
pub mod dev;
pub mod dump;
pub mod error;
mod failure;
pub mod hrana;
pub mod http;
pub mod import;
pub mod lent;
pub mod limits;
pub mod moment;
pub mod node;
pub mod pageserve;
pub mod serve;
pub mod session;
pub mod sqlite;
