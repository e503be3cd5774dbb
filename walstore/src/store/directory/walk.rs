//! Listing the keys of the tree in ascending order.
//!
//! A directory's entries are ordered as their keys are: the object `a` as `a`, the directory `a` as `a/`.
//! No such string that ends in `/` begins another, so whole directories can be skipped or entered one
//! after the other, and only those on the way to the wanted keys are read.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::failure::{Doing, Failure};
use super::root::{Root, names, open_directory};
use crate::store::{Key, StoreError, StoreErrorKind};

struct Walk<'a> {
    root: &'a Root,
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    found: Vec<Key>,
}

impl Root {
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let mut walk = Walk { root: self, prefix, after, limit, found: Vec::new() };
        let start = prefix.rsplit_once('/').map_or("", |(start, _)| start);
        // No key begins with what is not one itself; and it must not become a path.
        if !start.is_empty() && !Key::is_valid(start) {
            return Ok(Vec::new());
        }
        let start = if start.is_empty() { String::new() } else { format!("{start}/") };
        let walked = walk.enter(&start);
        walked.map_err(|failure| failure.into_store_error(prefix, StoreErrorKind::Retry))?;
        Ok(walk.found)
    }
}

impl Walk<'_> {
    /// Collects from one directory: its path, empty or with a `/` at the end.
    fn enter(&mut self, directory: &str) -> Result<(), Failure> {
        let opened = match open_directory(
            self.root.objects.as_fd(),
            if directory.is_empty() { "." } else { directory },
        ) {
            // Gone since its name was read, or not ours.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened.doing("open a directory")?,
        };
        let mut paths: Vec<String> =
            names(&opened)?.iter().map(|name| sort_path(directory, name)).collect();
        paths.retain(|path| self.may_hold(path));
        paths.sort_unstable();
        for path in paths {
            if self.found.len() == self.limit {
                break;
            }
            if path.ends_with('/') {
                self.enter(&path)?;
            } else if Key::is_valid(&path) {
                self.found.push(Key::new(path));
            }
        }
        Ok(())
    }

    fn may_hold(&self, path: &str) -> bool {
        if path.ends_with('/') {
            let fits = path.starts_with(self.prefix) || self.prefix.starts_with(path);
            fits && self.after.is_none_or(|after| path > after || after.starts_with(path))
        } else {
            path.starts_with(self.prefix) && self.after.is_none_or(|after| path > after)
        }
    }
}

/// The key of an object's file, or a directory's path with a `/` at the end.
fn sort_path(directory: &str, name: &str) -> String {
    match name.strip_suffix('@') {
        Some(leaf) => format!("{directory}{leaf}"),
        None => format!("{directory}{name}/"),
    }
}
