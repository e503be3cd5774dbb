//! SQLite on stackful coroutines.
//!
//! SQLite calls the VFS and expects an answer when the call returns. Here the call may *suspend*: control
//! goes back to the core's executor, which awaits what is missing (a segment, the writer's turn) and then
//! resumes the call with it. So ten thousand queries can wait for the bucket on two threads.
//!
//! Rules: only callbacks that SQLite makes outside of its own mutexes suspend; no thread-local guard or
//! borrow lives across a suspend; a suspended coroutine is never dropped but resumed with
//! [`Wake::Abandon`] until it returns, because unwinding through C frames is undefined.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::memory::{Charging, Meter};
use super::stack::{SqlStack, StackPool};

/// What a suspended call waits for.
pub enum Wait {
    /// Bytes of the bucket that the page path needs.
    Fetch(crate::database::pages::Fetch),
    /// The database's write turn.
    Turn,
    /// A little while, in which others may give memory back.
    Memory,
    /// A place in the reply's bounded channel, for a piece of a streamed result.
    Send(bytes::Bytes),
    /// Nothing: other tasks of this core shall run.
    Yield,
}

/// What a suspended call is resumed with.
#[derive(Clone, Debug)]
pub enum Wake {
    /// What it waited for is there.
    Ready,
    /// It failed.
    Failed(crate::error::ServerError),
    /// The request was cancelled or the database is closing: fail whatever is running.
    Abandon,
}

type SqlYielder = Yielder<Wake, Wait>;

thread_local! {
    /// The coroutine that runs on this thread. Set by the coroutine itself whenever it gains control.
    static CURRENT: Cell<Option<NonNull<SqlYielder>>> = const { Cell::new(None) };
}

/// Suspends the running coroutine. Outside of one, as when a connection is closed by its pool, nothing
/// can be waited for and the answer is [`Wake::Abandon`].
pub fn suspend(wait: Wait) -> Wake {
    let Some(yielder) = CURRENT.get() else { return Wake::Abandon };
    // SAFETY: `CURRENT` is set only while the coroutine that owns the yielder runs on this thread, and its
    // stack, which the yielder lives on, exists as long as it runs.
    #[expect(unsafe_code, reason = "the yielder lives on the running coroutine's stack")]
    let wake = unsafe { yielder.as_ref() }.suspend(wait);
    CURRENT.set(Some(yielder));
    wake
}

/// A panic inside of a coroutine, caught at its root.
pub struct Panicked(pub String);

/// Runs `body` as a coroutine, answering each of its waits with what `serve` awaits for it.
///
/// The returned future must be polled to its end: it owns the coroutine.
pub async fn run<T, F, S, A>(
    stack: SqlStack,
    meter: &Arc<Meter>,
    body: F,
    mut serve: S,
) -> (Result<T, Panicked>, SqlStack)
where
    T: 'static,
    F: FnOnce() -> T + 'static,
    S: FnMut(Wait) -> A,
    A: Future<Output = Wake>,
{
    let root = move |yielder: &SqlYielder, _start: Wake| {
        CURRENT.set(Some(NonNull::from(yielder)));
        let result = catch_unwind(AssertUnwindSafe(body));
        CURRENT.set(None);
        result.map_err(|panic| Panicked(panic_text(&*panic)))
    };
    let mut running = Running(Some(Coroutine::with_stack(stack, root)));
    let mut wake = Wake::Ready;
    loop {
        let resumed = {
            let _charging = Charging::to(meter);
            running.resume(wake)
        };
        match resumed {
            CoroutineResult::Yield(wait) => wake = serve(wait).await,
            CoroutineResult::Return(result) => return (result, running.into_stack()),
        }
    }
}

/// A coroutine that is leaked, not dropped, should its future be dropped half-way: that happens only when
/// the process ends, or a simulated one crashes.
struct Running<T: 'static>(Option<Coroutine<Wake, Wait, T, SqlStack>>);

impl<T> Running<T> {
    fn resume(&mut self, wake: Wake) -> CoroutineResult<Wait, T> {
        let result = self.0.as_mut().expect("BUG: a finished coroutine").resume(wake);
        CURRENT.set(None);
        result
    }

    fn into_stack(mut self) -> SqlStack {
        self.0.take().expect("BUG: a finished coroutine").into_stack()
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if let Some(mut coroutine) = self.0.take() {
            // Give SQLite the chance to fail its way out; a body that does not end is leaked.
            for _ in 0..ABANDON_TRIES {
                if coroutine.done() {
                    return;
                }
                let _ = coroutine.resume(Wake::Abandon);
                CURRENT.set(None);
            }
            if !coroutine.done() {
                std::mem::forget(coroutine);
            }
        }
    }
}

/// How often an abandoned coroutine is resumed with an error. Each failed read or lock ends one statement.
const ABANDON_TRIES: usize = 100_000;

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}

/// Takes a stack from the pool of this core.
pub fn take_stack(pool: &std::cell::RefCell<StackPool>) -> std::io::Result<SqlStack> {
    pool.borrow_mut().take()
}
