//! A person is asked before something that is hard to take back. Where there is none, the command line has to say yes.

use std::io::{self, BufRead, IsTerminal};

#[derive(Debug, thiserror::Error)]
#[error("nothing was done: `{0}` is not the name of the database")]
pub struct NotConfirmed(String);

/// A command line that lacks something, like one without an argument that is needed.
#[derive(Debug, thiserror::Error)]
#[error("{0}, and as stdin is no terminal nobody can be asked. Nothing was done. Pass --yes if that is meant")]
pub struct NobodyToAsk(String);

/// Has a person type the name, unless `yes` was said: the way back, if there is one, is long.
pub fn confirm(yes: bool, name: &str, what: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(NobodyToAsk(what.into()).into());
    }
    eprint!("{what}. Type its name to go on: ");
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == name { Ok(()) } else { Err(NotConfirmed(typed.trim().into()).into()) }
}
