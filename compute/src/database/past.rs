//! What makes an open database one of the past: it shows one commit for good.

use tenant::name::Name;

/// Which moment an open database shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its last commit, raw.
    pub lsn: u64,
}

impl Past {
    /// What a writer is told, in SQLite's own words first.
    pub fn refusal(self, name: &Name) -> String {
        let lsn = self.lsn;
        format!(
            "attempt to write a readonly database: this is `{name}` as it was after commit {lsn}. To have that state \
             back, run `shoal db restore {name} --lsn {lsn}`; to write on from it under another name, `shoal db fork \
             {name} <new name> --lsn {lsn}`"
        )
    }
}
