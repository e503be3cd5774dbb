//! The buckets that the tests run on.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use emulator::{Emulator, EmulatorConfig, Proxy, ProxyFaults};
use tempfile::TempDir;
use walstore::store::{Condition, DirectoryStore, Key, S3Credentials, S3Options, S3Store, Store, StoreUrl};

use crate::announce;
use crate::minio::{self, Minio, MinioProcess};

/// When this is `1`, tests that want MinIO fail without it.
const REQUIRE_VARIABLE: &str = "SHOAL_REQUIRE_MINIO";
const BUCKET: &str = "shoal";
/// Shoal shares its bucket, and so do the tests.
const PREFIX: &str = "some/prefix";
/// Where a directory store has its locks.
const LOCKS: &str = "locks";
/// Where it has its objects, and how the names of their files end.
const OBJECTS: &str = "objects";
const KEY_END: char = '@';

/// An empty bucket with its own server, which ends when this is dropped.
pub enum Bucket {
    Directory(TempDir),
    Minio(Minio),
    Emulator(Emulator),
    /// Another of these with proxies before its server, one for each way to it.
    Behind(Vec<Proxy>, Box<Self>),
}

impl Bucket {
    pub fn directory() -> Self {
        Self::Directory(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn emulator() -> Self {
        let config = EmulatorConfig { bucket: BUCKET.into(), prefix: PREFIX.into(), ..EmulatorConfig::default() };
        Self::Emulator(Emulator::start_in_thread(config).expect("a port to listen on"))
    }

    /// A bucket on real MinIO: a binary of this machine, or else (with the feature `docker`) a container. On a
    /// machine without either, and unless `SHOAL_REQUIRE_MINIO` is `1`, on the emulator instead. Says loudly
    /// which.
    ///
    /// # Panics
    /// If MinIO is required and missing.
    pub fn minio() -> Self {
        if let Some(binary) = minio::find_binary() {
            announce(&format!("running on real MinIO ({})", binary.display()));
            return Self::Minio(Minio::Process(MinioProcess::start(&binary, BUCKET)));
        }
        let why_not = match Minio::in_container(BUCKET) {
            Ok(minio) => {
                announce("running on real MinIO (in a container)");
                return Self::Minio(minio);
            }
            Err(why_not) => why_not,
        };
        let looked = format!("SHOAL_MINIO, ~/.cache/shoal-ci/bin/minio and the PATH name no minio binary; {why_not}");
        let is_required = std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| value == "1");
        assert!(!is_required, "{REQUIRE_VARIABLE}=1, but {looked}");
        announce(&format!("NOT RUNNING ON MINIO BUT ON THE EMULATOR: {looked}"));
        Self::emulator()
    }

    /// The same with so many proxies before its server, where faults can strike.
    ///
    /// # Panics
    /// A directory has no server.
    pub fn behind_proxies(self, count: usize, seed: u64) -> Self {
        let address = self.endpoint(0).trim_start_matches("http://").parse().expect("an address and a port");
        let seeds = (0..count as u64).map(|number| seed.wrapping_add(number));
        let proxies = seeds.map(|seed| Proxy::start(address, seed).expect("a port to listen on"));
        Self::Behind(proxies.collect(), Box::new(self))
    }

    /// What `--store` is told.
    pub fn store_url(&self) -> String {
        self.store_url_through(0)
    }

    /// What `--store` of the `number`-th process is told, if processes have different ways to the server.
    pub fn store_url_through(&self, number: usize) -> String {
        match self {
            Self::Directory(directory) => format!("file://{}", directory.path().display()),
            _ => url(BUCKET, &self.endpoint(number)),
        }
    }

    /// The URL of another bucket of the same server.
    ///
    /// # Panics
    /// A directory has no server.
    pub fn url_of(&self, bucket: &str) -> String {
        url(bucket, &self.endpoint(0))
    }

    fn endpoint(&self, number: usize) -> String {
        match self {
            Self::Directory(_) => panic!("a directory has no endpoint"),
            Self::Minio(minio) => minio.endpoint().to_owned(),
            Self::Emulator(emulator) => emulator.endpoint(),
            Self::Behind(proxies, _) => proxies[number % proxies.len()].endpoint(),
        }
    }

    /// Access key and secret key; a directory needs none.
    pub fn credentials(&self) -> Option<(String, String)> {
        match self {
            Self::Directory(_) => None,
            Self::Minio(_) => Some((minio::ACCESS_KEY.to_owned(), minio::SECRET_KEY.to_owned())),
            Self::Emulator(emulator) => Some((emulator.access_key().to_owned(), emulator.secret_key().to_owned())),
            Self::Behind(_, bucket) => bucket.credentials(),
        }
    }

    /// This bucket as the store seam sees it.
    ///
    /// # Panics
    /// If it is a directory, or cannot be opened.
    pub async fn open(&self) -> S3Store {
        let StoreUrl::S3(location) = StoreUrl::parse(&self.store_url()).expect("a store URL") else {
            panic!("a directory is no S3 store")
        };
        let credentials = self
            .credentials()
            .map(|(access, secret)| S3Credentials { access_key_id: access, secret_access_key: secret });
        let options = S3Options { credentials, ..S3Options::default() };
        S3Store::open(&location, &options).await.expect("a bucket that can be opened")
    }

    /// The emulator behind it.
    ///
    /// # Panics
    /// If it is none.
    pub fn as_emulator(&self) -> &Emulator {
        match self {
            Self::Emulator(emulator) => emulator,
            _ => panic!("this bucket is not an emulator's"),
        }
    }

    /// The faults on the way of each process.
    ///
    /// # Panics
    /// If there are no proxies.
    pub fn proxy_faults(&self) -> Vec<ProxyFaults> {
        match self {
            Self::Behind(proxies, _) => proxies.iter().map(|proxy| proxy.faults().clone()).collect(),
            _ => panic!("there is no proxy before this bucket"),
        }
    }

    /// Of a directory: the locks that a process holds at the moment. No other store has any.
    pub fn held_locks(&self) -> Vec<PathBuf> {
        let Self::Directory(directory) = self else { return Vec::new() };
        let locks = std::fs::read_dir(directory.path().join(LOCKS)).expect("a store has been opened");
        locks.map(|lock| lock.expect("a lock").path()).filter(|lock| is_held(lock)).collect()
    }

    /// Of a directory: the keys of all objects, in order.
    ///
    /// # Panics
    /// If it is none, or cannot be read.
    pub fn keys(&self) -> Vec<String> {
        let root = self.as_directory().join(OBJECTS);
        let (mut keys, mut directories) = (Vec::new(), vec![root.clone()]);
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("a store has been opened") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let key = path.strip_prefix(&root).ok().and_then(Path::to_str).expect("a key");
                    keys.push(key.trim_end_matches(KEY_END).to_owned());
                }
            }
        }
        keys.sort();
        keys
    }

    /// Of a directory: the file that an object lies in.
    ///
    /// # Panics
    /// If it is none.
    pub fn file_of(&self, key: &str) -> PathBuf {
        self.as_directory().join(OBJECTS).join(format!("{key}{KEY_END}"))
    }

    /// Of a directory: puts an object into it as a node does.
    ///
    /// # Panics
    /// If it is none, or does not take it.
    pub fn plant(&self, key: &Key, bytes: &'static [u8]) {
        let directory = self.as_directory();
        let put = async move {
            let store = DirectoryStore::open_existing(directory).await?;
            store.put(key, bytes.into(), &Condition::Absent).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(put).expect("a store that takes it");
    }

    /// The directory behind it.
    ///
    /// # Panics
    /// If it is none.
    pub fn as_directory(&self) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.path().to_owned(),
            _ => panic!("this bucket is not a directory"),
        }
    }
}

fn url(bucket: &str, endpoint: &str) -> String {
    format!("s3://{bucket}/{PREFIX}?endpoint={endpoint}&region=us-east-1")
}

/// Whether a process holds this lock of a directory store.
pub fn is_held(lock: &Path) -> bool {
    // Held by the test for no longer than this takes.
    let file = File::open(lock).expect("locks are never removed");
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}
