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
        if self.free.len() < limits::POOLED_STACKS_MAX {
            self.free.push(stack);
        }
    }
}
