//! How a worker shares its memory out.
//!
//! ```text
//! --memory = the program itself + what is read once for several tasks + for each slot: a pool, and as much beside it
//! ```

/// What the program takes beside its tasks: code, connections, buffers of the network, memory that is free and not given back.
const PROGRAM: u64 = 80 << 20;
/// What a task takes whatever its input is: blocks and row groups under way.
const SLOT_LEAST: u64 = 128 << 20;
/// One part of so many is for what is read once for several tasks.
const CACHE_SHARE: u64 = 8;

/// An aggregate that spills holds what its pool counts twice: as it was, and sorted.
const TIMES_HELD: u64 = 2;

/// Shares of the memory of a worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Budget {
    /// Bytes of one task's operators, as their pool counts them.
    pub(super) slot: u64,
    /// Bytes of what is read once for several tasks.
    pub(super) cache: u64,
}

impl Budget {
    pub(super) fn of(memory_bytes: u64, slots: usize) -> Self {
        let free = memory_bytes.saturating_sub(PROGRAM);
        let cache = free / CACHE_SHARE;
        let slot = (free - cache) / slots.max(1) as u64 / TIMES_HELD;
        Self { slot, cache }
    }
}

/// Returns the least memory of a worker that does so many tasks at a time.
#[must_use]
pub fn least_memory(slots: usize) -> u64 {
    PROGRAM + SLOT_LEAST * slots as u64
}
