//! The disk cache, on all of its back ends: what it keeps, what it survives, and that it never lies (I15, row R10).
//!
//! `SHOAL_DAMAGES=100000 cargo test --release -p segments --test disk` does so many damages; `SHOAL_SEED` draws others.

mod behaviour;
mod damage;
mod faults;
#[cfg(target_os = "linux")]
mod real_faults;
mod rig;
