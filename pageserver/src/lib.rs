#![doc = include_str!("../README.md")]

pub mod fetch;
pub mod fold;
pub mod garbage;
pub mod limits;
