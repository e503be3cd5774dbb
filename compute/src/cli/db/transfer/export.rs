//! A stream of a database's pages → a file. It is written beside its place, checked, and only then renamed, so that
//! whatever stands there is a whole database.

use std::fs::Permissions;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tempfile::NamedTempFile;
use ureq::Body;
use ureq::http::Response;

use crate::cli::db::progress::Progress;
use super::{TransferError, check};
use crate::cli::admin::Admin;
use crate::cli::args::Output;
use crate::cli::client::{ClientError, agent_for, refusal, transport_error};
use crate::cli::url::DatabaseUrl;
use crate::http::data::LSN_HEADER;

/// Where to write.
pub struct Target<'t> {
    pub file: &'t Path,
    pub force: bool,
}

const BUFFER_BYTES: usize = 256 << 10;

/// Writes a database, by its name or its URL, to a file.
pub fn export(
    admin: &Admin,
    out: &mut impl Write,
    output: Output,
    database: &str,
    auth_token: Option<String>,
    target: &Target<'_>,
) -> Result<(), TransferError> {
    let path = target.file;
    if !target.force && path.exists() {
        return Err(TransferError::Exists(path.to_owned()));
    }
    let auth_token = auth_token.as_deref();
    let answer = request(admin, database, auth_token, "")?;
    let number = |header: &str| answer.headers().get(header)?.to_str().ok()?.parse::<u64>().ok();
    let (Some(bytes), Some(lsn)) = (number("content-length"), number(LSN_HEADER)) else {
        return Err(TransferError::Odd("it does not say how long it is, and of which commit".into()));
    };
    let progress = Progress::to_terminal();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritten = TransferError::file(path, "can't be written");
    // Readable by whom the umask lets read, as any file that is made here.
    let permissions = Permissions::from_mode(0o666);
    let file = tempfile::Builder::new().prefix(".shoal-").permissions(permissions).tempfile_in(directory);
    let mut file = file.map_err(&unwritten)?;
    receive(answer, &mut file, bytes, &progress, path).map_err(|error| match error {
        // A failure that comes after the first byte can only break the answer off; who asks is told.
        TransferError::CutShort { received, bytes } => {
            match request(admin, database, auth_token, &format!("?check_from={received}")) {
                Err(cause) => TransferError::BrokenOff { received, bytes, cause: Box::new(cause) },
                Ok(_) => error,
            }
        }
        other => other,
    })?;
    progress.begin("checking");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(file.path(), flags).map_err(TransferError::not_read(path))?;
    check(&sql, path, bytes)?;
    drop(sql);
    file.as_file().sync_all().map_err(&unwritten)?;
    match target.force {
        true => file.persist(path).map_err(|error| unwritten(error.error))?,
        false => file.persist_noclobber(path).map_err(|error| unwritten(error.error))?,
    };
    progress.end();
    let shown = path.display();
    let written = match output {
        Output::Text => writeln!(out, "exported {database} to {shown}: {bytes} bytes, LSN {lsn}"),
        Output::Json => {
            let file = path.to_string_lossy();
            writeln!(out, "{}", json!({ "exported": database, "file": file, "bytes": bytes, "lsn": lsn }))
        }
    };
    written.map_err(|error| ClientError::Output(error).into())
}

fn request(
    admin: &Admin,
    database: &str,
    auth_token: Option<&str>,
    query: &str,
) -> Result<Response<Body>, TransferError> {
    let (url, token, agent);
    if database.contains("://") {
        let database = DatabaseUrl::parse(database)?;
        url = format!("{}export{query}", database.base());
        let own = || database.auth_token().map(str::to_owned);
        token = auth_token.filter(|token| !token.is_empty()).map(str::to_owned).or_else(own);
        agent = agent_for(&url);
    } else {
        let (name, moment) = database.split_once('@').map_or((database, None), |(name, moment)| (name, Some(moment)));
        let moment = moment.map_or_else(String::new, |moment| format!("%40{}", moment.replace('+', "%2B")));
        (url, token, agent) = (format!("{}{moment}/export{query}", admin.namespace_url(name)?), None, admin.agent.clone());
    }
    let mut request = agent.get(&url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = request.call().map_err(|error| transport_error(&url, error))?;
    if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).into()) }
}

fn receive(
    answer: Response<Body>,
    file: &mut NamedTempFile,
    bytes: u64,
    progress: &Progress,
    path: &Path,
) -> Result<(), TransferError> {
    let unwritten = TransferError::file(path, "can't be written");
    let mut reader = answer.into_body().into_reader();
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, file);
    let (mut buffer, mut received) = (vec![0; BUFFER_BYTES], 0);
    loop {
        // One that breaks off has an error here, or is too short.
        let count = reader.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            break;
        }
        writer.write_all(&buffer[..count]).map_err(&unwritten)?;
        received += count as u64;
        progress.at("receiving", received, bytes);
    }
    writer.flush().map_err(&unwritten)?;
    if received == bytes { Ok(()) } else { Err(TransferError::CutShort { received, bytes }) }
}
