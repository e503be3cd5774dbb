//! A converted file → the server, in parts. The server says how much it has, and from there it goes on; so after a
//! broken connection, and after this program was ended and started again. The requests are in [`crate::http::import`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde::Deserialize;

use super::TransferError;
use super::convert::Converted;
use crate::cli::db::progress::Progress;
use crate::cli::admin::{Admin, AdminError};
use crate::cli::client::ClientError;
use crate::cli::limits::UPLOAD_TRIES;

/// A file that has become a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub lsn: u64,
    /// How much of it the server had before.
    pub resumed_from: u64,
}

/// What to wait before trying again.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Received {
    received: u64,
    part_bytes: u64,
}

#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum State {
    Checking,
    Storing { done: u64, of: u64 },
    Done { lsn: u64 },
}

/// Asks whether the name can be had, before a file is converted for it.
pub fn ask(admin: &Admin, name: &str) -> Result<(), TransferError> {
    let url = format!("{}/import", admin.namespace_url(name)?);
    let ask = || match admin.read(admin.agent.get(&url).call(), &url) {
        // Maybe what stands in the way is the very import that is to go on.
        Err(AdminError::Client(ClientError::Refused { status: 503, .. })) => Ok(()),
        answer => Ok(answer.map(drop)?),
    };
    again(ask)
}

/// Sends the file, and waits until it is a database.
pub fn upload(admin: &Admin, name: &str, file: &Converted, progress: &Progress) -> Result<Done, TransferError> {
    let upload = Upload { admin, base: format!("{}/import", admin.namespace_url(name)?), file };
    let first = again(|| upload.begin())?;
    let mut received = first.received;
    let source = File::open(&file.path).map_err(TransferError::file(&file.path, "can't be read"))?;
    let (mut tries, mut furthest) = (0, received);
    while received < file.bytes {
        progress.at("sending", received, file.bytes);
        let mut part = vec![0; usize::try_from(first.part_bytes.min(file.bytes - received)).unwrap_or(usize::MAX)];
        source.read_exact_at(&mut part, received).map_err(TransferError::file(&file.path, "can't be read"))?;
        match upload.part(received, &part) {
            Ok(answer) => received = answer.received,
            Err(error) => {
                tries = if received > furthest { 1 } else { tries + 1 };
                furthest = furthest.max(received);
                match passes(error) {
                    Ok(error) if tries > UPLOAD_TRIES => return Err(TransferError::Stuck(error)),
                    Ok(_) => {
                        pause();
                        received = again(|| upload.begin())?.received;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    loop {
        match again(|| upload.finish())? {
            State::Checking => progress.begin("the server checks it"),
            State::Storing { done, of } => progress.at("the server stores it", done * 4096, of * 4096),
            State::Done { lsn } => return Ok(Done { lsn, resumed_from: first.received }),
        }
    }
}

struct Upload<'u> {
    admin: &'u Admin,
    base: String,
    file: &'u Converted,
}

impl Upload<'_> {
    fn which(&self) -> String {
        format!("bytes={}&blake3={}", self.file.bytes, self.file.hash.to_hex())
    }

    fn begin(&self) -> Result<Received, TransferError> {
        let url = format!("{}?{}", self.base, self.which());
        read(&self.admin.read(self.admin.agent.post(&url).send_empty(), &url)?)
    }

    fn part(&self, offset: u64, part: &[u8]) -> Result<Received, TransferError> {
        let url = format!("{}?{}&offset={offset}", self.base, self.which());
        read(&self.admin.read(self.admin.agent.put(&url).send(part), &url)?)
    }

    fn finish(&self) -> Result<State, TransferError> {
        let url = format!("{}/finish?{}", self.base, self.which());
        read(&self.admin.read(self.admin.agent.post(&url).send_empty(), &url)?)
    }
}

/// Asks again while what is in the way may pass.
fn again<T>(ask: impl Fn() -> Result<T, TransferError>) -> Result<T, TransferError> {
    let mut tries = 0;
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => passes(error)?,
        };
        tries += 1;
        if tries > UPLOAD_TRIES {
            return Err(error.into());
        }
        pause();
    }
}

fn read<T: for<'a> Deserialize<'a>>(answer: &str) -> Result<T, TransferError> {
    serde_json::from_str(answer).map_err(|error| TransferError::Odd(error.to_string()))
}

/// An error that may pass by itself, or the error of the whole.
fn passes(error: TransferError) -> Result<ClientError, TransferError> {
    match error {
        TransferError::Admin(AdminError::Client(error)) => match error {
            ClientError::Unreachable { .. } | ClientError::Indefinite(_) => Ok(error),
            ClientError::Refused { status: 503, .. } => Ok(error),
            // Another place is to be sent than the one that we believed to be next.
            ClientError::Refused { status: 409, error: ref why } if why.message.contains("bytes are here") => Ok(error),
            other => Err(TransferError::Admin(AdminError::Client(other))),
        },
        other => Err(other),
    }
}

#[expect(clippy::disallowed_methods, reason = "a plain client waits in real time")]
fn pause() {
    std::thread::sleep(PAUSE);
}
