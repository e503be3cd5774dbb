//! What a row came to: as a table for people, as JSON for the results.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Report {
    pub row: &'static str,
    pub metric: &'static str,
    pub values: Vec<Value>,
    pub commit: String,
    pub machine: Machine,
}

/// One measured figure, and what it should be if it has a goal.
#[derive(Debug, Serialize)]
pub struct Value {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

impl Value {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value: rounded(value), unit, goal: None, met: None }
    }

    pub fn at_most(mut self, goal: f64) -> Self {
        self.met = Some(self.value <= goal);
        self.goal = Some(format!("≤ {goal}"));
        self
    }

    pub fn exactly(mut self, goal: f64) -> Self {
        self.met = Some(self.value == goal);
        self.goal = Some(format!("= {goal}"));
        self
    }

    pub fn at_least(mut self, goal: f64) -> Self {
        self.met = Some(self.value >= goal);
        self.goal = Some(format!("≥ {goal}"));
        self
    }
}

/// Four digits are more than any of these figures is worth.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

impl Report {
    pub fn new(row: &'static str, metric: &'static str, values: Vec<Value>) -> Self {
        Self { row, metric, values, commit: String::new(), machine: Machine::this() }
    }

    /// Whether no goal was missed.
    pub fn is_met(&self) -> bool {
        self.values.iter().all(|value| value.met != Some(false))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}  {}", self.row, self.metric)?;
        for Value { name, value, unit, goal, met } in &self.values {
            let verdict = met.map_or("", |met| if met { "met" } else { "MISSED" });
            writeln!(f, "  {name:<58}{value:>12} {unit:<10}{:<10}{verdict}", goal.as_deref().unwrap_or(""))?;
        }
        let Machine { cpu, cores, memory_gib, kernel } = &self.machine;
        write!(f, "  at {} on {cores} cores, {memory_gib} GiB, {cpu}, Linux {kernel}", self.commit)
    }
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
}

impl Machine {
    fn this() -> Self {
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

/// The commit that is checked out here, or `unknown`.
pub fn commit_of_this_directory() -> String {
    let asked = Command::new("git").args(["rev-parse", "HEAD"]).output();
    match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
