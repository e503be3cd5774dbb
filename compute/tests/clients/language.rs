//! The three clients: how each application is started, and what its driver is known not to be able to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::outcome::Outcome;
use crate::script::{Action, Step};
use crate::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    JavaScript,
    Python,
    Rust,
}

impl Language {
    /// Its folder among the installed clients.
    pub fn folder(self) -> &'static str {
        match self {
            Language::JavaScript => "javascript",
            Language::Python => "python",
            Language::Rust => "rust",
        }
    }

    /// The files here that say what has to be installed. The installation keeps copies of those that it was made
    /// from, in `installed-from`.
    fn inputs(self) -> &'static [&'static str] {
        match self {
            Language::JavaScript => &["package.json", "package-lock.json"],
            Language::Python => &["requirements.txt"],
            Language::Rust => &["rust/Cargo.toml", "rust/Cargo.lock", "rust/src/main.rs"],
        }
    }

    /// Whether what is installed is what the files here ask for.
    pub fn is_installed(self, clients: &Path) -> bool {
        self.inputs().iter().all(|input| {
            let wanted = source(input);
            let name = wanted.file_name().expect("a file");
            let found = clients.join(self.folder()).join("installed-from").join(name);
            std::fs::read(found).is_ok_and(|found| found == std::fs::read(&wanted).expect("a file of this repository"))
        })
    }

    pub fn command(self, clients: &Path, url: &str, script: &Path) -> Command {
        let folder = clients.join(self.folder());
        let mut command = match self {
            Language::JavaScript => {
                let mut command = Command::new("node");
                command.arg(source("app.mjs")).arg(folder);
                command
            }
            Language::Python => {
                let mut command = Command::new(folder.join("venv/bin/python"));
                command.arg(source("app.py"));
                command
            }
            Language::Rust => Command::new(folder.join("libsql-application")),
        };
        command.arg(url).arg(script);
        command
    }

    /// The script as this driver can send it.
    pub fn can_send(self, steps: Vec<Step>) -> Vec<Step> {
        match self {
            Language::JavaScript => {
                // JSON as JavaScript writes it has one zero: the driver sends 0 for -0. (As here, where the pattern
                // stands for both.)
                let sent = |value: Value| match value {
                    Value::Real(0.0) => Value::Real(0.0),
                    value => value,
                };
                steps.into_iter().map(|step| step.map_arguments(&sent)).collect()
            }
            Language::Python => {
                // The driver sends integers beyond 32 bits as floats.
                let sent = |value: Value| match value {
                    Value::Integer(integer) if i32::try_from(integer).is_err() => Value::Real(integer as f64),
                    value => value,
                };
                // It takes sequences of arguments only.
                let steps = steps.into_iter().filter(|step| !step.names_arguments());
                steps.map(|step| step.map_arguments(&sent)).collect()
            }
            Language::Rust => steps,
        }
    }

    /// What this driver can tell of an outcome.
    pub fn can_tell(self, action: &Action, outcome: Outcome) -> Outcome {
        let is_many = matches!(action, Action::Batch(_) | Action::Script(_));
        match (self, outcome) {
            // The protocol's floats are JSON numbers. An infinity goes out as 1e999, which this driver's parser
            // refuses as out of range (as it does the `null` of libSQL's server).
            (Language::Python | Language::Rust, outcome) if outcome.has_infinity() => {
                Outcome::Failed { code: None, message: "number out of range".to_owned() }
            }
            // The driver drops the codes of the steps of a batch, and keeps their messages.
            (Language::Rust, Outcome::Failed { message, .. }) if is_many => Outcome::Failed { code: None, message },
            // The driver looks at no errors of a script's statements. The next step sees what became of them.
            (Language::Python, Outcome::Failed { .. }) if is_many => Outcome::Done,
            // The driver sends the SQL as its own parser writes it, with spaces and capitals of its own, and
            // SQLite calls a column without an alias by its text.
            (Language::Rust, Outcome::Rows { columns, rows }) => {
                let columns = columns.into_iter().map(|name| name.replace(' ', "").to_lowercase()).collect();
                Outcome::Rows { columns, rows }
            }
            (_, outcome) => outcome,
        }
    }
}

pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}
