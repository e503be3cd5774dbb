//! Stacks for coroutines: generously reserved, committed lazily, with a guard that no frame jumps over.

use std::num::NonZeroUsize;
use std::ptr;

use corosensei::stack::{Stack, StackPointer};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::limits;

/// One mapped stack. Only pages that were touched cost memory.
pub struct SqlStack {
    start: NonZeroUsize,
}

const MAPPED_BYTES: usize = limits::STACK_BYTES + limits::STACK_GUARD_BYTES;

impl SqlStack {
    /// Maps a new stack; an error is the operating system's (too many mappings, no memory).
    pub fn map() -> std::io::Result<Self> {
        // SAFETY: a fresh anonymous private mapping, aliased by nobody.
        let start = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
            mmap_anonymous(ptr::null_mut(), MAPPED_BYTES, ProtFlags::READ | ProtFlags::WRITE, flags)?
        };
        let stack = Self { start: NonZeroUsize::new(start as usize).expect("BUG: mmap returned null") };
        // SAFETY: the lowest part of the mapping made above.
        unsafe { mprotect(start, limits::STACK_GUARD_BYTES, MprotectFlags::empty())? };
        Ok(stack)
    }

    /// How many bytes were used since it was mapped, from its beginning to the last that is not as the operating
    /// system gave it. Looks at all of them: for measuring only.
    pub fn touched_bytes(&self) -> usize {
        // SAFETY: see `usable`; nothing writes while `self` is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(self.usable(), limits::STACK_BYTES) };
        // Stacks grow downwards: the deepest byte is the first that has changed.
        bytes.iter().position(|byte| *byte != 0).map_or(0, |untouched| bytes.len() - untouched)
    }

    /// Whether a statement has used it deeper than POOLED_STACK_BYTES: a page there is no longer as the operating
    /// system gave it. (A frame that skips a whole page would go unnoticed, and cost memory, no more.)
    fn was_deep(&self) -> bool {
        const PAGE: usize = 4096;
        let page = limits::STACK_BYTES - limits::POOLED_STACK_BYTES - PAGE;
        // SAFETY: see `usable`; nothing writes while `self` is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(self.usable().add(page), PAGE) };
        bytes.iter().any(|byte| *byte != 0)
    }

    /// The STACK_BYTES above the guard, which are mapped, readable and writable as long as `self` lives.
    fn usable(&self) -> *const u8 {
        (self.start.get() + limits::STACK_GUARD_BYTES) as *const u8
    }
}

impl Drop for SqlStack {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; nothing runs on it any more, as the coroutine is gone.
        unsafe {
            let _ = munmap(self.start.get() as *mut _, MAPPED_BYTES);
        }
    }
}

// SAFETY: `limit` includes a guard of STACK_GUARD_BYTES without access; the rest is STACK_BYTES long and
// page-aligned, which is more than the alignment a stack needs.
unsafe impl Stack for SqlStack {
    fn base(&self) -> StackPointer {
        self.start.checked_add(MAPPED_BYTES).expect("BUG: a mapping at the end of the address space")
    }

    fn limit(&self) -> StackPointer {
        self.start
    }
}

/// Stacks of finished coroutines, kept for the next ones. One per core.
#[derive(Default)]
pub struct StackPool {
    free: Vec<SqlStack>,
}

impl StackPool {
    pub fn take(&mut self) -> std::io::Result<SqlStack> {
        match self.free.pop() {
            Some(stack) => Ok(stack),
            None => SqlStack::map(),
        }
    }

    pub fn give_back(&mut self, stack: SqlStack) {
        if self.free.len() < limits::POOLED_STACKS_MAX && !stack.was_deep() {
            self.free.push(stack);
        }
    }
}

#[cfg(test)]
mod tests {
    use corosensei::{Coroutine, CoroutineResult};

    use super::*;

    /// Runs something on the stack that uses so much of it.
    fn use_stack(stack: SqlStack, bytes: usize) -> SqlStack {
        fn sink(bytes: usize) -> usize {
            let frame = std::hint::black_box([1_u8; 1024]);
            let deeper = if bytes > 1024 { sink(bytes - 1024) } else { 0 };
            deeper + usize::from(std::hint::black_box(&frame)[0])
        }
        let mut coroutine: Coroutine<(), (), usize, SqlStack> = Coroutine::with_stack(stack, move |_, ()| sink(bytes));
        assert!(matches!(coroutine.resume(()), CoroutineResult::Return(_)));
        coroutine.into_stack()
    }

    #[test]
    fn what_was_used_of_a_fresh_stack_can_be_told() {
        for bytes in [4 << 10, 100 << 10, 1 << 20] {
            let stack = SqlStack::map().unwrap();
            assert_eq!(stack.touched_bytes(), 0);
            let stack = use_stack(stack, bytes);
            let touched = stack.touched_bytes();
            assert!((bytes..2 * bytes + 4096).contains(&touched), "{touched} of {bytes}");
        }
    }

    #[test]
    fn the_pool_keeps_stacks_but_not_much_memory() {
        let mut pool = StackPool::default();
        let stack = pool.take().unwrap();
        pool.give_back(use_stack(stack, 10 << 10));
        assert_eq!(pool.free.len(), 1);
        let stack = pool.take().unwrap();
        pool.give_back(use_stack(stack, 2 * limits::POOLED_STACK_BYTES));
        assert_eq!(pool.free.len(), 0, "a deep one is given back to the operating system");
    }
}
