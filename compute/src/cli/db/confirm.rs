//! A person is asked before something that is hard to take back.

use std::io::{self, BufRead};

#[derive(Debug, thiserror::Error)]
#[error("nothing was done: `{0}` is not the name of the database")]
pub struct NotConfirmed(String);

/// Has a person type the name: the way back, if there is one, is long.
pub fn confirm(name: &str, what: &str) -> anyhow::Result<()> {
    eprint!("{what}. Type its name to go on: ");
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == name { Ok(()) } else { Err(NotConfirmed(typed.trim().into()).into()) }
}
