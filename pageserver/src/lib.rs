#![doc = include_str!("../README.md")]

mod at_rest;
pub mod base;
pub mod drain;
pub mod fetcher;
pub mod fold;
pub mod garbage;
pub mod limits;
pub mod service;
pub mod tail;
pub mod warm;
