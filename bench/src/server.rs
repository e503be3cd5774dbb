//! Shoal as a process of its own, so that it shares neither memory nor runtime with what measures it.
//!
//! The process is this program, started as `bench serve <flags of shoal serve>`: what is measured is always
//! what was built together with the benchmark. It prints one line with its two addresses.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use compute::cli::args::{Cli, Command as Cmd};
use compute::cli::config::ServeConfig;
use compute::serve::{Server, serve};
use emulator::Emulator;

use crate::cgroup::Cgroup;
use crate::hrana;
use crate::process::Process;

const SERVE: &str = "serve";

/// `--memory`, unless a row says otherwise.
const MEMORY_MIB: u64 = 256;
/// What the process may take besides.
const BESIDES_MIB: u64 = 128;

static STARTED: AtomicU32 = AtomicU32::new(0);
static CAPPED: AtomicU32 = AtomicU32::new(0);

/// How many of the servers that were started since the last call the kernel has held to what they may take. `None` if
/// none was started.
pub fn share_with_a_cap() -> Option<f64> {
    let (started, capped) = (STARTED.swap(0, Ordering::Relaxed), CAPPED.swap(0, Ordering::Relaxed));
    (started > 0).then(|| f64::from(capped) / f64::from(started))
}

fn memory_mib(flags: &[&str]) -> anyhow::Result<u64> {
    let given = flags.iter().zip(flags.iter().skip(1)).find(|(flag, _)| **flag == "--memory").map(|(_, size)| size);
    let mib = |size: &&str| size.strip_suffix("MiB").and_then(|mib| mib.parse().ok());
    given.map_or(Ok(MEMORY_MIB), |size| mib(size).with_context(|| format!("--memory {size} is not in MiB")))
}

/// Whether this process was started to be the server.
pub fn is_wanted() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == SERVE)
}

/// The server's `main`.
pub fn main() -> anyhow::Result<ExitCode> {
    // As `shoal serve` begins.
    compute::sqlite::memory::share_among_threads();
    let Cmd::Serve(args) = Cli::from_command_line().command else { bail!("BUG: not started to serve") };
    let config = ServeConfig::resolve(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let server = Server::start(&config).await?;
        println!("{} {}", server.http_addr, server.admin_addr);
        serve(config, server).await
    })?;
    runtime.shutdown_background();
    Ok(code)
}

/// A running server, killed when this is dropped. Where the kernel can, it holds the process to what it may take.
pub struct ServerProcess {
    child: Child,
    cgroup: Option<Cgroup>,
    pub http: String,
    pub admin: String,
}

impl ServerProcess {
    /// Starts a server on the emulator's bucket. `flags` are those of `shoal serve`.
    pub fn start_with(emulator: &Emulator, cache_dir: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_clear().envs(emulator.environment());
        command.args([SERVE, "--store", &emulator.store_url(), "--cache-dir"]).arg(cache_dir);
        command.args(["--http-listen-addr", "127.0.0.1:0", "--admin-listen-addr", "127.0.0.1:0"]);
        command.args(flags);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        STARTED.fetch_add(1, Ordering::Relaxed);
        let cgroup = Cgroup::with_memory(&number.to_string(), (memory_mib(flags)? + BESIDES_MIB) << 20);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        if let Some(cgroup) = &cgroup {
            cgroup.add(Process(child.id()))?;
            CAPPED.fetch_add(1, Ordering::Relaxed);
        }
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let addresses = line.trim().split_once(' ').map(|(http, admin)| (http.to_owned(), admin.to_owned()));
        let (http, admin) = addresses.context("the server did not start")?;
        Ok(Self { child, cgroup, http, admin })
    }

    /// `kill -9`. Returns when the process is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// The most memory that the kernel has counted for it, if it is held to a cap: its files in memory as well.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(Cgroup::peak_bytes)
    }

    /// Folds all of a database and gives it up.
    pub fn release(&self, database: &str) -> anyhow::Result<()> {
        let url = format!("http://{}/v1/namespaces/{database}/release", self.admin);
        let answer = hrana::agent().post(&url).send("")?;
        anyhow::ensure!(answer.status().is_success(), "cannot release `{database}`: {}", answer.status());
        Ok(())
    }

    /// Creates a database and returns its URL.
    pub fn create(&self, database: &str) -> anyhow::Result<String> {
        let url = format!("http://{}/v1/namespaces/{database}/create", self.admin);
        let answer = hrana::agent().post(&url).send("{}")?;
        anyhow::ensure!(answer.status().is_success(), "cannot create `{database}`: {}", answer.status());
        Ok(self.url(database))
    }

    /// A database's URL, with the slash at the end.
    pub fn url(&self, database: &str) -> String {
        format!("http://{}/db/{database}/", self.http)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
