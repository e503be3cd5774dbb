//! What an emulator is started with.

use std::net::{Ipv4Addr, SocketAddr};

use crate::latency::Profile;

/// The settings of an emulator. `EmulatorConfig::default()` fits most tests.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// The bucket that exists from the start. Others can be created over the wire.
    pub bucket: String,
    /// What the keys of the program under test start with, without the last `/`; may be empty. It is part
    /// of [`store_url`](crate::Emulator::store_url) and does not count for a key's class.
    pub prefix: String,
    /// How long answers take.
    pub profile: Profile,
    /// Determines the latencies and the faults that are left to chance.
    pub seed: u64,
    pub access_key: String,
    pub secret_key: String,
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many threads serve requests when the emulator brings its own
    /// ([`start_in_thread`](crate::Emulator::start_in_thread)).
    pub threads: usize,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            bucket: "shoal".to_owned(),
            prefix: String::new(),
            profile: Profile::local(),
            seed: 0,
            access_key: "emulator".to_owned(),
            secret_key: "emulator-secret".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            threads: 1,
        }
    }
}
