//! What Linux tells of another process.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

/// A tick of the CPU time that Linux reports, whatever its own is.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }

    /// A field of its status, in bytes: `VmRSS` is what it has in memory, `VmHWM` the most that it had.
    pub fn memory_bytes(self, field: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(self.path("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {field} of process {}", self.0))? << 10)
    }

    /// How many file descriptors it has open.
    pub fn file_descriptors(self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(self.path("fd"))?.count())
    }

    /// CPU time that all its threads have had, in steps of 10 ms.
    pub fn cpu_seconds(self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(self.path("stat"))?;
        // The program's name, in brackets, may hold anything.
        let fields = stat.rsplit_once(')').context("no name in stat")?.1;
        let field = |index: usize| fields.split_whitespace().nth(index).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = field(11).zip(field(12)).context("no times in stat")?;
        Ok((user + system) / TICKS_PER_SECOND)
    }
}
