//! libSQL's server as a process, for whoever has it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{clock, hrana};

const START: Duration = Duration::from_secs(20);

/// A running server, killed when this is dropped.
pub struct Sqld {
    child: Child,
    /// Of its one database, with the slash at the end.
    pub url: String,
    _directory: TempDir,
}

impl Sqld {
    pub fn start(binary: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        // It cannot be asked which free port it took, so one is found for it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(binary);
        command.args(["--no-welcome", "--http-listen-addr", &address, "--db-path"]).arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let sqld = Self { child, url: format!("http://{address}/"), _directory: directory };
        sqld.wait_until_it_serves()?;
        Ok(sqld)
    }

    fn wait_until_it_serves(&self) -> anyhow::Result<()> {
        let deadline = clock::now() + START;
        while clock::now() < deadline {
            if hrana::agent().get(format!("{}health", self.url)).call().is_ok_and(|answer| answer.status().is_success())
            {
                return Ok(());
            }
            clock::pause(Duration::from_millis(50));
        }
        bail!("libSQL's server does not serve")
    }
}

impl Drop for Sqld {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
