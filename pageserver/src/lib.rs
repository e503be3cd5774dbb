#![doc = include_str!("../README.md")]

pub mod base;
pub mod drain;
pub mod fetcher;
pub mod fold;
pub mod garbage;
pub mod limits;
pub mod tail;
