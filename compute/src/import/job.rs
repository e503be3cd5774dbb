//! From a file that has arrived to a database. Nobody sees anything of it before the head is written; what fails leaves
//! nothing behind that counts. A job ends whether or not its client is still there to be told.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pageserver::fold::Folder;
use pageserver::import::{Import, PACK_PAGES, Source};
use segments::page::{PAGE_BYTES, Page};
use tenant::name::Name;
use tenant::registry::{self, Aborted, CreateError};
use tokio::sync::watch;
use tracing::{info, warn};
use walstore::id::{DatabaseId, Lsn};
use walstore::register::Patience;

use super::check;
use super::staging::{self, Upload};
use crate::context::NodeContext;
use crate::error::{Fault, ServerError};

/// How long a job keeps asking the store for one thing.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    Checking,
    /// Pages that are in the bucket.
    Storing { done: u32, of: u32 },
    Done { lsn: u64 },
    Failed(ServerError),
}

/// Tells how far a job is.
pub struct Progress {
    stage: Mutex<Stage>,
    ended: watch::Sender<bool>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { stage: Mutex::new(Stage::Checking), ended: watch::Sender::new(false) }
    }
}

impl Progress {
    pub fn stage(&self) -> Stage {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns when the job has ended.
    pub async fn ended(&self) {
        // The sender is here, so this never fails.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn set(&self, stage: Stage) {
        let ended = matches!(stage, Stage::Done { .. } | Stage::Failed(_));
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        self.ended.send_if_modified(|it| std::mem::replace(it, ended) != ended);
    }
}

/// A file that was found to be good.
#[derive(Clone, Debug)]
pub struct Checked {
    pub name: Name,
    /// BLAKE3 of all of it.
    pub hash: [u8; 32],
    pub page_count: u32,
}

/// Where the pages of a file are.
pub trait Pages: Sync {
    /// The `count` pages that follow the first `after`.
    fn read(&self, after: u32, count: u32) -> impl Future<Output = Result<Vec<Page>, ServerError>> + Send;
}

/// Checks the file and makes it a database.
pub async fn run(node: Arc<NodeContext>, upload: Upload, progress: Arc<Progress>) {
    let ending = Ending(progress.clone());
    let temp_directory = node.settings.temp_directory.clone();
    let path = upload.path(&temp_directory);
    let checked = check::check(&node, &upload, &path).await;
    if checked.as_ref().is_err_and(|error| error.fault == Fault::Invalid) {
        // It does not get better.
        staging::delete(&upload, &temp_directory);
    }
    let stored = match checked {
        Ok(page_count) => {
            let file = Checked { name: upload.name.clone(), hash: upload.hash, page_count };
            store(&node, &file, &Staged(path), &progress).await
        }
        Err(error) => Err(error),
    };
    match stored {
        Ok(lsn) => {
            staging::delete(&upload, &temp_directory);
            info!(name = %upload.name, bytes = upload.bytes, lsn, "imported");
            progress.set(Stage::Done { lsn });
        }
        Err(error) => {
            warn!(name = %upload.name, %error, "not imported");
            progress.set(Stage::Failed(error));
        }
    }
    drop(ending);
}

/// A job that is dropped or panics has ended, too.
struct Ending(Arc<Progress>);

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            let (fault, text) = match self.0.stage() {
                Stage::Storing { .. } => (Fault::Indefinite, "the import was cut off; it is not known whether it was done"),
                _ => (Fault::Retry, "the import was cut off; ask for it again"),
            };
            self.0.set(Stage::Failed(ServerError::new(fault, text)));
        }
    }
}

/// Makes a file a database, and returns its last commit (raw).
pub async fn store(
    node: &NodeContext,
    file: &Checked,
    pages: &impl Pages,
    progress: &Progress,
) -> Result<u64, ServerError> {
    let Checked { name, hash, page_count } = file;
    let (store, seam) = (&*node.stores.main, &node.seam);
    let database = DatabaseId::random(seam);
    begin(node, name, database).await?;
    let settings = node.settings.of_new_database(node.now_micros());
    let time_micros = node.now_micros();
    let source = Source { name: name.clone(), database, settings, page_count: *page_count, hash: *hash, time_micros };
    let mut import = Import::new(Folder { store, seam, fetcher: &node.fetcher }, source);
    let failure = match write(node, &mut import, pages, *page_count, progress).await {
        Ok(lsn) => return Ok(lsn),
        Err(error) => error,
    };
    // Asked for without end: until it is known, nobody can use the name.
    let aborted = registry::abort_import(store, seam, name, database, node.id, Patience::endless()).await;
    let aborted = aborted.map_err(|error| {
        // Whoever wants the name finds out.
        node.given_up.add(database);
        let text = format!("it is not known what became of the import: {error}; look whether `{name}` exists before you import it again");
        ServerError::new(Fault::Indefinite, text)
    });
    match aborted? {
        Aborted::Lives(head) => Ok(Lsn::raw(head.value.folded.lsn)),
        Aborted::Gone => {
            import.discard().await;
            Err(failure)
        }
    }
}

/// Takes the name, also from an import that was cut off.
async fn begin(node: &NodeContext, name: &Name, database: DatabaseId) -> Result<(), ServerError> {
    let try_once = || {
        let patience = Patience::for_duration(&node.seam, PATIENCE);
        registry::begin_import(&*node.stores.main, &node.seam, name, database, node.id, patience)
    };
    let begun = match try_once().await {
        Err(CreateError::Resolve(error)) if node.end_unfinished(&error).await? => try_once().await,
        begun => begun,
    };
    Ok(begun.inspect_err(|error| node.given_up.add_if_unknown(database, error))?)
}

async fn write(
    node: &NodeContext,
    import: &mut Import<'_>,
    pages: &impl Pages,
    page_count: u32,
    progress: &Progress,
) -> Result<u64, ServerError> {
    while import.page_count() < page_count {
        let done = import.page_count();
        progress.set(Stage::Storing { done, of: page_count });
        let next = pages.read(done, PACK_PAGES.min(page_count - done)).await?;
        import.add(next).await.map_err(|error| not_stored(&error))?;
    }
    progress.set(Stage::Storing { done: page_count, of: page_count });
    let head = import.finish().await.map_err(|error| not_stored(&error))?;
    let patience = Patience::for_duration(&node.seam, PATIENCE);
    let head = registry::finish_import(&*node.stores.main, &node.seam, head, node.id, patience).await?;
    Ok(Lsn::raw(head.value.folded.lsn))
}

/// On this node's disk.
struct Staged(PathBuf);

impl Pages for Staged {
    async fn read(&self, after: u32, count: u32) -> Result<Vec<Page>, ServerError> {
        read_pages(self.0.clone(), after, count).await
    }
}

async fn read_pages(path: PathBuf, after: u32, count: u32) -> Result<Vec<Page>, ServerError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; count as usize * PAGE_BYTES];
        File::open(path)?.read_exact_at(&mut bytes, u64::from(after) * PAGE_BYTES as u64)?;
        std::io::Result::Ok(Bytes::from(bytes))
    });
    let failed = |error: &dyn std::fmt::Display| {
        ServerError::new(Fault::Retry, format!("this node cannot read the uploaded file back: {error}"))
    };
    let bytes = read.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(pages_of(&bytes))
}

/// The pages that these bytes are.
pub fn pages_of(bytes: &Bytes) -> Vec<Page> {
    let page = |at: usize| Page::new(bytes.slice(at..at + PAGE_BYTES)).expect("BUG: a slice of a page's length");
    (0..bytes.len()).step_by(PAGE_BYTES).map(page).collect()
}

fn not_stored(error: &pageserver::fold::FoldFailure) -> ServerError {
    ServerError::new(Fault::Retry, format!("the bucket did not take the database; ask for the import again: {error}"))
}
