//! Memory that is free, and that the C library keeps for this process.

/// Gives the system back whole pages that are free. The library keeps most of them where a piece behind them is in use: a third of a
/// worker after it has decoded, which the next stage would take on top of its own.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a function of the GNU C library")]
pub(super) fn give_back() {
    unsafe extern "C" {
        /// Keeps `pad` bytes at the end of the heap; 1 where it gave something back.
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    let _has_given = malloc_trim(0);
}

/// Other libraries give it back by themselves, or have no way to be asked.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}
