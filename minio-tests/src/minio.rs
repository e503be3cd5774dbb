//! A MinIO server of the test's own, on a new directory and a free port.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
use tempfile::TempDir;

use crate::clock;
use crate::limits::START;

/// Names the binary, if it is in no usual place.
const BINARY_VARIABLE: &str = "SHOAL_MINIO";
/// Where `.ci/run` puts it, below the home directory.
const CACHED_BINARY: &str = ".cache/shoal-ci/bin/minio";
/// A port that was free may be taken by the time MinIO asks for it.
const TRIES: usize = 5;

pub const ACCESS_KEY: &str = "minio-tests";
pub const SECRET_KEY: &str = "minio-tests-secret";

/// A running MinIO with a bucket. It ends, and its data with it, when this is dropped.
pub enum Minio {
    Process(MinioProcess),
    #[cfg(feature = "docker")]
    Container(crate::container::MinioContainer),
}

impl Minio {
    /// Where there is no binary: MinIO in a container. An error says why not.
    #[cfg(feature = "docker")]
    pub fn in_container(bucket: &str) -> Result<Self, String> {
        let container = crate::container::MinioContainer::start()?;
        make_bucket(container.endpoint(), bucket)?;
        Ok(Self::Container(container))
    }

    /// Where there is no binary. An error says why not.
    #[cfg(not(feature = "docker"))]
    pub fn in_container(_bucket: &str) -> Result<Self, String> {
        Err("without the feature `docker` no container is tried".into())
    }

    pub fn endpoint(&self) -> &str {
        match self {
            Self::Process(process) => process.endpoint(),
            #[cfg(feature = "docker")]
            Self::Container(container) => container.endpoint(),
        }
    }
}

/// A MinIO that runs as a process of this machine. It ends, and its data with it, when this is dropped.
pub struct MinioProcess {
    child: Child,
    endpoint: String,
    directory: TempDir,
}

/// Where the `minio` binary is: named by `SHOAL_MINIO`, in the cache of `.ci/run`, or on the `PATH`.
pub fn find_binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(BINARY_VARIABLE) {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "{BINARY_VARIABLE} is {}, which is no file", named.display());
        return Some(named);
    }
    let cached = std::env::home_dir().map(|home| home.join(CACHED_BINARY));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("minio"));
    cached.into_iter().chain(on_path).find(|candidate| candidate.is_file())
}

impl MinioProcess {
    /// Starts the server and makes `bucket`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(binary: &Path, bucket: &str) -> Self {
        let started = (0..TRIES).find_map(|_| Self::try_start(binary));
        let minio = started.unwrap_or_else(|| panic!("{} did not start, {TRIES} times", binary.display()));
        make_bucket(&minio.endpoint, bucket).unwrap_or_else(|error| panic!("{error}\n{}", minio.log()));
        minio
    }

    /// `None` if it ended by itself, as it does when its port was taken.
    fn try_start(binary: &Path) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = free_address();
        let output = File::create(directory.path().join("log")).expect("a file for the log");
        let mut command = Command::new(binary);
        command.args(["server", "--address", &address]).arg(directory.path().join("data"));
        // Its configuration, certificates and caches stay inside the directory too.
        command.env("HOME", directory.path());
        command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
        command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off");
        command.stdin(Stdio::null()).stderr(output.try_clone().expect("a second handle")).stdout(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", binary.display()));
        let mut minio = Self { child, endpoint: format!("http://{address}"), directory };
        let ready = format!("{}/minio/health/ready", minio.endpoint);
        let is_up = clock::poll(START, || {
            if minio.child.try_wait().expect("its status").is_some() {
                return Some(false);
            }
            ureq::get(&ready).call().is_ok().then_some(true)
        });
        match is_up {
            Some(true) => Some(minio),
            Some(false) => None,
            None => panic!("MinIO is not ready within {START:?}:\n{}", minio.log()),
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the server wrote so far.
    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

fn make_bucket(endpoint: &str, bucket: &str) -> Result<(), String> {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "minio-tests"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::standard());
    let client = Client::from_conf(config.build());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = runtime.block_on(client.create_bucket().bucket(bucket).send());
    made.map(drop).map_err(|error| format!("cannot make the bucket `{bucket}`: {error:?}"))
}

/// An address of this machine that nothing listens on at the moment.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

impl Drop for MinioProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- MinIO's log\n{}---", self.log());
        }
        // It may have ended already; its data is thrown away in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
