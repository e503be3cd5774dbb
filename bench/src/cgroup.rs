//! A cap on a process's memory by the kernel, where one can be had: a control group of version 2 or 1.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Process;

/// A group with a limit. It is removed when this is dropped, if its processes have ended by then.
pub struct Cgroup {
    directory: PathBuf,
    peak_file: &'static str,
}

impl Cgroup {
    /// A new group, or `None` where this user may not make one.
    pub fn with_memory(name: &str, bytes: u64) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let versions = [(root.to_owned(), "memory.max", "memory.peak"), (
            root.join("memory"),
            "memory.limit_in_bytes",
            "memory.max_usage_in_bytes",
        )];
        versions.into_iter().find_map(|(parent, limit_file, peak_file)| {
            let directory = parent.join(format!("shoal-bench-{name}-{}", std::process::id()));
            fs::create_dir(&directory).ok()?;
            let group = Self { directory, peak_file };
            // Only a memory controller has this file, and creating it is not allowed.
            let limit = group.directory.join(limit_file);
            (limit.exists() && fs::write(limit, bytes.to_string()).is_ok()).then_some(group)
        })
    }

    /// Puts a process under the cap. What it has taken before does not count.
    pub fn add(&self, process: Process) -> anyhow::Result<()> {
        Ok(fs::write(self.directory.join("cgroup.procs"), process.0.to_string())?)
    }

    /// The most that its processes had at a time, if the kernel tells.
    pub fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.directory.join(self.peak_file)).ok()?.trim().parse().ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Not while a process is in it: then it stays until the machine starts again, and costs nothing.
        let _ = fs::remove_dir(&self.directory);
    }
}
