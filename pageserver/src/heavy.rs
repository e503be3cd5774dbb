//! Work that takes CPU for long, as compressing a pack does, kept from holding up the runtime that it is on: the log and
//! the lease live there, and a commit must not wait for somebody's fold.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// So many at a time: more would only take the processor from each other, and from the log.
static PERMITS: Semaphore = Semaphore::const_new(2);

/// Runs `work` beside the other tasks of this runtime, if it has threads for that. In a runtime of one thread, as the
/// simulator's, it runs right here.
pub async fn heavy<T>(work: impl FnOnce() -> T) -> T {
    let has_threads =
        Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !has_threads {
        return work();
    }
    let _permit = PERMITS.acquire().await;
    tokio::task::block_in_place(work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// With one worker thread: the work waits for a task that only that worker could run.
    #[test]
    fn other_tasks_go_on_while_it_runs() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (sender, receiver) = mpsc::channel();
        let work = runtime.spawn(heavy(move || {
            #[expect(clippy::disallowed_methods, reason = "a task beside the one that works")]
            tokio::spawn(async move { sender.send(7).unwrap() });
            receiver.recv().unwrap()
        }));
        assert_eq!(runtime.block_on(work).unwrap(), 7);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_runs_it_in_place() {
        assert_eq!(heavy(|| 7).await, 7);
    }
}
