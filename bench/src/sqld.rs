//! libSQL's server as a process, for whoever has it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
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
    binary: PathBuf,
    directory: TempDir,
}

impl Sqld {
    pub fn start(binary: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (child, url) = Self::spawn(binary, directory.path())?;
        let sqld = Self { child, url, binary: binary.to_owned(), directory };
        sqld.wait_until_it_serves()?;
        Ok(sqld)
    }

    /// `kill -9`, and another process on the same files; it may not serve yet.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.url) = Self::spawn(&self.binary, self.directory.path())?;
        Ok(())
    }

    fn spawn(binary: &Path, directory: &Path) -> anyhow::Result<(Child, String)> {
        // It cannot be asked which free port it took, so one is found for it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(binary);
        command.args(["--no-welcome", "--http-listen-addr", &address, "--db-path"]).arg(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        Ok((child, format!("http://{address}/")))
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
