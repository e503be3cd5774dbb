//! What an error of the operating system means for a request.

use rustix::io::Errno;

use crate::store::{StoreError, StoreErrorKind};

/// A system call that failed, and what it was for.
#[derive(Debug)]
pub(super) struct Failure {
    pub errno: Errno,
    pub doing: &'static str,
}

pub(super) trait Doing<T> {
    /// Names the step, in the form "open the file".
    fn doing(self, doing: &'static str) -> Result<T, Failure>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, doing: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| Failure { errno, doing })
    }
}

impl<T> Doing<T> for Result<T, std::io::Error> {
    fn doing(self, doing: &'static str) -> Result<T, Failure> {
        // An error without a number comes from `read_exact` and `write_all`: the file ended, or the disk did.
        self.map_err(|error| Failure {
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
            doing,
        })
    }
}

impl Failure {
    /// `transient` is what an error means that may pass: `Retry` for reads, `Indefinite` for writes.
    pub fn into_store_error(
        self,
        key: impl std::fmt::Display,
        transient: StoreErrorKind,
    ) -> StoreError {
        let (kind, advice) = match self.errno {
            Errno::NOSPC | Errno::DQUOT => {
                (StoreErrorKind::Full, ": make room on this file system")
            }
            Errno::ACCESS | Errno::PERM => (
                StoreErrorKind::Denied,
                ": the directory and all in it must belong to Shoal's user",
            ),
            Errno::ROFS => (StoreErrorKind::Denied, ": it must be writable"),
            Errno::NAMETOOLONG => {
                (StoreErrorKind::Invalid, ": this file system cannot hold such a key")
            }
            Errno::NOTDIR | Errno::ISDIR | Errno::LOOP => {
                (StoreErrorKind::Invalid, ": something other than Shoal has changed the directory")
            }
            _ => (transient, ""),
        };
        let message = format!("cannot {}: {}{advice}", self.doing, self.errno);
        StoreError::new(kind, key, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_full_and_an_unknown_error_is_transient() {
        let error = |errno| {
            let failure = Failure { errno, doing: "write the file" };
            failure.into_store_error("k", StoreErrorKind::Indefinite)
        };
        assert_eq!(error(Errno::NOSPC).kind, StoreErrorKind::Full);
        assert_eq!(error(Errno::ACCESS).kind, StoreErrorKind::Denied);
        assert_eq!(error(Errno::IO).kind, StoreErrorKind::Indefinite);
        let text = error(Errno::NOSPC).to_string();
        assert!(text.starts_with("k: cannot write the file: No space left on device"), "{text}");
    }
}
