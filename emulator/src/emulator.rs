//! The handle to a running emulator.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::class::Operation;
use crate::config::EmulatorConfig;
use crate::counters::Counters;
use crate::faults::Faults;
use crate::journal::JournalEntry;
use crate::latency::Profile;
use crate::objects::{Bucket, Condition, Object};
use crate::server::{self, Core};

/// A running emulator. Dropping it stops it; the objects are gone with it.
#[must_use = "dropping an emulator stops it"]
pub struct Emulator {
    core: Arc<Core>,
    /// The thread of an emulator that brought its own runtime.
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts an emulator on the caller's tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(config: EmulatorConfig) -> io::Result<Self> {
        let (core, listener) = server::bind(config)?;
        drop(core.spawn(server::run(Arc::clone(&core), listener)));
        Ok(Self { core, thread: None })
    }

    /// Starts an emulator on a thread (and runtime) of its own, for callers without a runtime and for
    /// measurements that should not share one.
    ///
    /// # Errors
    /// When the address cannot be listened on or the thread cannot be started.
    pub fn start_in_thread(config: EmulatorConfig) -> io::Result<Self> {
        let runtime = runtime(config.threads)?;
        let (core, listener) = {
            let _context = runtime.enter();
            server::bind(config)?
        };
        let thread = spawn_thread(runtime, Arc::clone(&core), listener)?;
        Ok(Self { core, thread: Some(thread) })
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.core.address)
    }

    /// The bucket that existed from the start.
    pub fn bucket(&self) -> &str {
        &self.core.config.bucket
    }

    pub fn access_key(&self) -> &str {
        &self.core.config.access_key
    }

    pub fn secret_key(&self) -> &str {
        &self.core.config.secret_key
    }

    /// The URL that names this bucket, prefix included, as a store: `s3://bucket/prefix?endpoint=…`.
    pub fn store_url(&self) -> String {
        let EmulatorConfig { bucket, prefix, .. } = &self.core.config;
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("s3://{bucket}{slash}{prefix}?endpoint={}&region=us-east-1", self.endpoint())
    }

    /// The environment in which a program that reads `AWS_*` variables can use the store.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ACCESS_KEY_ID", self.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key().to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// The switches for faults.
    pub fn faults(&self) -> &Faults {
        &self.core.faults
    }

    /// Changes the latencies of requests that arrive from now on.
    pub fn set_profile(&self, profile: Profile) {
        self.core.set_profile(profile);
    }

    /// The counters as of now. A PUT is counted when its body has arrived, the bytes of an answer when it
    /// is handed to the connection.
    pub fn counters(&self) -> Counters {
        self.core.tally.read()
    }

    pub fn reset_counters(&self) {
        self.core.tally.reset();
    }

    /// The most requests of one operation that were in flight at once since the last reset.
    pub fn in_flight_max(&self, operation: Operation) -> u64 {
        self.core.tally.in_flight_max(operation)
    }

    /// Begins a journal of all requests, anew if there is one. Returns the moment that its times count from.
    pub fn begin_journal(&self) -> Instant {
        self.core.journal.begin().into_std()
    }

    /// Ends the journal: every request that was answered since it began, in order of arrival.
    pub fn end_journal(&self) -> Vec<JournalEntry> {
        self.core.journal.end()
    }

    /// How many objects the bucket holds.
    pub fn object_count(&self) -> usize {
        self.with_bucket(|objects| objects.len())
    }

    /// All objects whose (full) keys start with `prefix`, in key order. The bytes are shared, not copied.
    pub fn objects(&self, prefix: &str) -> Vec<(String, Bytes)> {
        self.with_bucket(|objects| {
            let from = objects.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            let below = from.take_while(|(key, _)| key.starts_with(prefix));
            below.map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
        })
    }

    /// The bytes of one object.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.with_bucket(|objects| objects.get(key).map(|object| object.bytes.clone()))
    }

    /// Writes an object past the wire: no latency, no faults, no counting.
    pub fn insert(&self, key: &str, bytes: impl Into<Bytes>) {
        let object = Object::new(bytes.into());
        let put = self.core.objects.put(self.bucket(), key, object, &Condition::None);
        put.expect("BUG: the bucket is gone");
    }

    /// Deletes an object past the wire. Tells whether there was one.
    pub fn remove(&self, key: &str) -> bool {
        self.with_bucket(|objects| objects.remove(key).is_some())
    }

    /// Damages an object's bytes and, as bit rot would, leaves its ETag as it was. Tells whether there was
    /// an object.
    pub fn corrupt(&self, key: &str, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(bytes) = self.object(key) else { return false };
        let mut bytes = bytes.to_vec();
        damage(&mut bytes);
        self.with_bucket(|objects| match objects.get_mut(key) {
            Some(object) => {
                object.bytes = Bytes::from(bytes);
                true
            }
            None => false,
        })
    }

    fn with_bucket<T>(&self, f: impl FnOnce(&mut Bucket) -> T) -> T {
        self.core.objects.with(self.bucket(), f).expect("BUG: the bucket is gone")
    }

    /// Closes the socket and all connections. With a thread of its own, the emulator is gone when this
    /// returns; on the caller's runtime it goes at the next opportunity.
    pub fn stop(self) {}
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.core.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the emulator's thread panicked");
        }
    }
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = match threads {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.max(1)).thread_name("emulator").enable_all().build()
}

fn spawn_thread(
    runtime: Runtime,
    core: Arc<Core>,
    listener: TcpListener,
) -> io::Result<JoinHandle<()>> {
    let run = move || runtime.block_on(server::run(core, listener));
    thread::Builder::new().name("emulator".to_owned()).spawn(run)
}
