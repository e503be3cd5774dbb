//! Where a setting came from, so that an error names the thing to change.

use std::fmt;
use std::path::PathBuf;

use super::ConfigError;

/// Displayed as the subject of an error: `--lease (or SHOAL_LEASE)`, `lease in /etc/shoal.toml`.
/// The key is the setting's name in [`super::Settings`], with underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The flag or its variable; the parser merges the two.
    CommandLine {
        key: &'static str,
    },
    File {
        key: &'static str,
        path: PathBuf,
    },
    Default {
        key: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::CommandLine { key } => {
                write!(f, "--{} (or SHOAL_{})", key.replace('_', "-"), key.to_uppercase())
            }
            Origin::File { key, path } => {
                write!(f, "{} in {}", key.replace('_', "-"), path.display())
            }
            Origin::Default { key } => write!(f, "the default of --{}", key.replace('_', "-")),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub struct Found<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T: fmt::Display> Found<T> {
    /// The value, if it fits.
    pub fn require(self, fits: impl Fn(&T) -> bool, remedy: &'static str) -> Result<T, ConfigError> {
        if fits(&self.value) {
            return Ok(self.value);
        }
        Err(ConfigError::OutOfRange { origin: self.origin, value: self.value.to_string(), remedy })
    }
}

/// Looks settings up, in order.
pub struct Sources {
    file: PathBuf,
}

impl Sources {
    pub fn new(file: PathBuf) -> Sources {
        Sources { file }
    }

    /// The first of flag, file and default that says something.
    pub fn pick<T>(&self, key: &'static str, flag: Option<T>, file: Option<T>, default: T) -> Found<T> {
        self.pick_optional(key, flag, file).unwrap_or(Found { value: default, origin: Origin::Default { key } })
    }

    pub fn pick_optional<T>(&self, key: &'static str, flag: Option<T>, file: Option<T>) -> Option<Found<T>> {
        let from_file = || Origin::File { key, path: self.file.clone() };
        flag.map(|value| Found { value, origin: Origin::CommandLine { key } })
            .or_else(|| file.map(|value| Found { value, origin: from_file() }))
    }
}
