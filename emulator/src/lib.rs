#![doc = include_str!("../README.md")]

mod class;
mod clock;
mod config;
mod control;
mod counters;
mod dice;
mod digest;
mod emulator;
mod fault_answer;
mod faults;
mod hold;
mod latency;
mod limits;
mod listing;
mod objects;
mod proxy;
mod request;
mod s3;
mod server;

pub use class::{Class, Operation};
pub use config::EmulatorConfig;
pub use counters::{Counter, Counters};
pub use emulator::Emulator;
pub use faults::{Chances, Fault, Faults, Outage};
pub use hold::Hold;
pub use latency::{Latency, Profile, UnknownProfile};
pub use proxy::{Proxy, ProxyFault, ProxyFaults};
