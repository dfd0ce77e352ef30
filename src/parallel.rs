//! Maps a slice on several threads and keeps its order.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Maps `items` on up to `threads` threads; results are in the order of the items, whichever thread made them.
///
/// # Panics
/// Where `map` panics.
pub fn map<I: Sync, T: Send>(
    threads: NonZeroUsize,
    items: &[I],
    map: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let workers = threads.get().min(items.len());
    if workers < 2 {
        return items.iter().map(map).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return done;
            };
            done.push((index, map(item)));
        }
    };
    let mut results = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = handles.into_iter().map(|handle| match handle.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect::<Vec<_>>()
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
