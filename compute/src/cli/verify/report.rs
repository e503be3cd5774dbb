//! What a check finds, told as text or as JSON.

use std::io::{self, Write};

use pageserver::verify::{Damage, Orphan, PageSink, Summary, Tally, Witness};
use serde_json::{Value, json};
use walstore::seam::Seam;

use super::super::args::Output;
use super::assembled::Assembled;

/// How often progress is told.
const PROGRESS_MICROS: u64 = 2_000_000;

pub struct Report {
    output: Output,
    assembled: Option<Assembled>,
    seam: Seam,
    is_terminal: bool,
    told_at_micros: u64,
    damages: Vec<Value>,
    notes: Vec<Value>,
    orphans: Vec<Value>,
}

impl Report {
    pub fn new(output: Output, assembled: Option<Assembled>, seam: Seam, is_terminal: bool) -> Self {
        let told_at_micros = seam.boot_micros();
        let (damages, notes, orphans) = Default::default();
        Self { output, assembled, seam, is_terminal, told_at_micros, damages, notes, orphans }
    }

    /// Says what it all came to.
    pub fn finish(&mut self, summary: &Summary, store: &str) -> io::Result<()> {
        self.clear_progress();
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", self.to_json(summary, store)),
            Output::Text => writeln!(out, "{}", to_text(summary)),
        }
    }

    fn to_json(&self, summary: &Summary, store: &str) -> Value {
        json!({
            "store": store,
            "is_sound": summary.damages == 0,
            "databases": summary.databases,
            "logs": summary.logs,
            "packs": tally(summary.packs),
            "commits": summary.commits,
            "unsettled": summary.unsettled,
            "damages": self.damages,
            "notes": self.notes,
            "orphans": {
                "dead": tally(summary.dead),
                "waiting": tally(summary.waiting),
                "deleted": tally(summary.deleted),
                "list": self.orphans,
            },
        })
    }

    fn line(&mut self, line: &str) {
        self.clear_progress();
        // A reader that went away is noticed by the last line, whose errors count.
        let _ = writeln!(io::stdout(), "{line}");
    }

    fn clear_progress(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

impl Witness for Report {
    fn damage(&mut self, damage: &Damage) {
        let Damage { key, what, name } = damage;
        if self.output == Output::Json {
            self.damages.push(json!({ "key": key, "what": what, "database": name.as_ref().map(|name| name.as_str()) }));
            return;
        }
        let whose = name.as_ref().map_or_else(String::new, |name| format!(" (database `{name}`)"));
        self.line(&format!("damaged: {key}: {what}{whose}"));
    }

    fn orphan(&mut self, orphan: &Orphan) {
        let Orphan { key, bytes, standing, is_deleted } = orphan;
        if self.output == Output::Json {
            self.orphans.push(json!({
                "key": key.as_str(),
                "bytes": bytes,
                "is_dead": standing.is_dead(),
                "why": standing.why(),
                "is_deleted": is_deleted,
            }));
            return;
        }
        let what = match (is_deleted, standing.is_dead()) {
            (true, _) => "deleted",
            (false, true) => "dead",
            (false, false) => "orphan",
        };
        self.line(&format!("{what}: {key}: {bytes} bytes; {}", standing.why()));
    }

    fn note(&mut self, key: &str, what: &str) {
        match self.output {
            Output::Json => self.notes.push(json!({ "key": key, "what": what })),
            Output::Text => self.line(&format!("note: {key}: {what}")),
        }
    }

    fn progress(&mut self, summary: &Summary) {
        let now = self.seam.boot_micros();
        if now.saturating_sub(self.told_at_micros) < PROGRESS_MICROS {
            return;
        }
        self.told_at_micros = now;
        let Summary { databases, logs, packs, damages, .. } = summary;
        let line = format!(
            "{databases} databases, {logs} logs, {} packs ({}) checked; {damages} damages",
            packs.objects,
            in_units(packs.bytes)
        );
        if self.is_terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
    }

    fn pages(&mut self) -> Option<&mut dyn PageSink> {
        self.assembled.as_mut().map(|assembled| assembled as &mut dyn PageSink)
    }
}

fn to_text(summary: &Summary) -> String {
    let Summary { databases, logs, packs, commits, damages, unsettled, dead, waiting, deleted } = summary;
    let mut lines = vec![format!(
        "checked {databases} databases, {logs} logs, {} packs and chunks ({}), {commits} commits",
        packs.objects,
        in_units(packs.bytes)
    )];
    let mut orphans = |tally: &Tally, what: &str| {
        if tally.objects > 0 {
            lines.push(format!("{} orphans ({}) {what}", tally.objects, in_units(tally.bytes)));
        }
    };
    orphans(dead, "are provably dead");
    orphans(waiting, "may belong to something in flight");
    orphans(deleted, "were deleted");
    if *unsettled > 0 {
        lines.push(format!("{unsettled} databases or logs changed under every look; check them again"));
    }
    lines.push(match damages {
        0 => "nothing is wrong".to_owned(),
        1 => "1 damage".to_owned(),
        more => format!("{more} damages"),
    });
    lines.join("\n")
}

fn tally(tally: Tally) -> Value {
    json!({ "objects": tally.objects, "bytes": tally.bytes })
}

fn in_units(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
