#![doc = include_str!("../README.md")]

pub mod envelope;
pub mod fragment;
pub mod id;
pub mod incarnation;
pub mod keys;
pub mod lease;
pub mod life;
pub mod limits;
pub mod log;
pub mod mutant;
pub mod register;
pub mod seal;
pub mod seam;
pub mod store;
