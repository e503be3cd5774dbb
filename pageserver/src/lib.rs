#![doc = include_str!("../README.md")]

mod at_rest;
pub mod base;
pub mod collect;
mod discard;
pub mod drain;
pub mod fetcher;
pub mod fold;
pub mod fork;
pub mod garbage;
mod heavy;
pub mod history;
pub mod import;
pub mod limits;
pub mod listing;
pub mod orphan;
pub mod scrub;
pub mod service;
pub mod sweep;
pub mod tail;
pub mod verify;
pub mod warm;
