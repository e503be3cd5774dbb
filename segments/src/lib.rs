#![doc = include_str!("../README.md")]

pub mod base;
pub mod btree;
pub mod cache;
pub mod commit;
pub mod disk;
pub mod fold;
pub mod history;
pub mod id;
pub mod image;
pub mod keys;
pub mod limits;
pub mod map;
pub mod mask;
pub mod pack;
pub mod page;
pub mod tip;
mod varint;
