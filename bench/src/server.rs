//! Shoal as a process of its own, so that it shares neither memory nor runtime with what measures it.
//!
//! The process is this program, started as `bench serve <flags of shoal serve>`: what is measured is always
//! what was built together with the benchmark. It prints one line with its two addresses.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use compute::cli::args::{Cli, Command as Cmd};
use compute::cli::config::ServeConfig;
use compute::serve::{Server, serve};
use emulator::Emulator;

use crate::hrana;
use crate::process::Process;

const SERVE: &str = "serve";

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

/// A running server, killed when this is dropped.
pub struct ServerProcess {
    child: Child,
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
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let addresses = line.trim().split_once(' ').map(|(http, admin)| (http.to_owned(), admin.to_owned()));
        let (http, admin) = addresses.context("the server did not start")?;
        Ok(Self { child, http, admin })
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
