#![doc = include_str!("../README.md")]

pub mod calendar;
pub mod draining;
pub mod due;
mod field;
pub mod head;
pub mod keys;
pub mod lifecycle;
pub mod limits;
pub mod name;
pub mod naming;
pub mod pins;
pub mod record;
pub mod registry;
pub mod settings;
