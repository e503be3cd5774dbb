//! When a batch closes: how long its commits wait for company.
//!
//! A commit that meets an idle log goes out at once, so a single writer waits for exactly one PUT. While PUTs
//! are in flight a batch may wait. Its *slack*, counted from its first member, is a quarter of a PUT's usual
//! latency, or half of it in a *crowd*: many commits in the log or just released from it. It waits
//! - until a quarter has passed since the last PUT was started, but not beyond the slack: PUTs are spread over
//!   the round trip;
//! - for the oldest PUT's answer, if that should come within the slack: its clients come back and share this
//!   batch;
//! - after such an answer, until one commit has come for each that was released, but no longer than a quarter
//!   after the latest arrival, and at most a quarter after the answer, or three quarters in a crowd: it takes
//!   its clients' requests a while to get through the processor.
//!
//! So convoys of writers, wherever they are in the round trip, merge into one instead of scattering over the
//! pipeline. What a crowd pays is less than a second PUT in the worst case, and little in the usual one: the
//! batch closes with the last of those that come back.

use crate::limits;

/// What the log holds at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// When the first member of the batch came.
    pub opened_micros: u64,
    /// In the batch and in flight.
    pub commits: usize,
    /// When the oldest unanswered PUT was started.
    pub waiting_since: Option<u64>,
}

/// What the pace of PUTs, answers and arrivals has been.
#[derive(Clone)]
pub struct Pace {
    /// A moving average of PUT latencies.
    put_micros: u64,
    last_start_micros: u64,
    last_arrival_micros: u64,
    /// When commits were last acknowledged.
    last_release_micros: u64,
    /// How many of the clients released lately have not come back yet.
    awaited: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { put_micros: 4_000, last_start_micros: 0, last_arrival_micros: 0, last_release_micros: 0, awaited: 0 }
    }
}

impl Pace {
    pub fn on_arrival(&mut self, now_micros: u64) {
        self.awaited = self.awaited.saturating_sub(1);
        self.last_arrival_micros = now_micros;
    }

    pub fn on_start(&mut self, now_micros: u64) {
        self.last_start_micros = now_micros;
    }

    pub fn on_answer(&mut self, took_micros: u64) {
        // A stalled store must not make the pace useless for minutes after it has recovered.
        let sample = took_micros.min(100_000);
        self.put_micros = (self.put_micros * 7 + sample) / 8;
    }

    /// `commits` were acknowledged; so many more than these are in the log.
    pub fn on_release(&mut self, commits: usize, left: usize, now_micros: u64) {
        let since = now_micros.saturating_sub(self.last_release_micros);
        // Who has not come back by the time that a batch would have waited has gone elsewhere.
        let is_recent = since <= self.return_micros(left + commits);
        self.awaited = if is_recent { self.awaited + commits } else { commits };
        self.last_release_micros = now_micros;
    }

    /// When waiting for company stops to be worth it; 0 if it is not now.
    pub fn company_at(&self, log: Situation) -> u64 {
        let put = self.put_micros;
        let slack = if self.is_crowd(log.commits) { put / 2 } else { put / 4 };
        let slack_ends = log.opened_micros.saturating_add(slack);
        let mut until = 0;
        if let Some(oldest) = log.waiting_since {
            until = self.last_start_micros.saturating_add(put / 4);
            let answered = oldest.saturating_add(put);
            // Decided by when the batch was opened, not by now: else it would wait ever again for an answer
            // that comes just after the slack has ended.
            if answered <= slack_ends {
                until = until.max(answered.saturating_add(put / 8));
            }
        }
        until = until.min(slack_ends);
        if self.awaited > 0 && self.last_release_micros <= slack_ends {
            let returned = self.last_release_micros.saturating_add(self.return_micros(log.commits));
            let latest = self.last_release_micros.max(self.last_arrival_micros);
            until = until.max(returned.min(latest.saturating_add(put / 4)));
        }
        until
    }

    /// How long after an answer its clients may take to come back.
    fn return_micros(&self, commits: usize) -> u64 {
        self.put_micros / 4 * if self.is_crowd(commits) { 3 } else { 1 }
    }

    fn is_crowd(&self, commits: usize) -> bool {
        commits + self.awaited >= limits::CROWD_COMMITS_MIN
    }
}
