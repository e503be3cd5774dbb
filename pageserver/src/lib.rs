#![doc = include_str!("../README.md")]

pub mod base;
pub mod drain;
pub mod fetcher;
pub mod fold;
pub mod garbage;
mod heavy;
pub mod limits;
pub mod tail;
