//! Files of the warehouse by which the driver tells all tasks of a plan what is too large for the plan; read once a process.

use std::collections::VecDeque;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use datafusion::error::DataFusionError;

use crate::store::Store;
use crate::store::files::Source;

/// Reads a whole file; `ask` is told its length before.
pub(super) fn read(
    store: &Store,
    path: &str,
    ask: impl FnOnce(usize) -> Result<(), DataFusionError>,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut source, length) = store.files().open(Path::new(path))?;
    ask(usize::try_from(length).unwrap_or(usize::MAX)).map_err(io::Error::other)?;
    source.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads so many bytes from so far on; `source` stays open in between.
pub(super) fn read_part(
    store: &Store,
    path: &str,
    source: &mut Option<Box<dyn Source>>,
    (from, length): (u64, u32),
) -> io::Result<Vec<u8>> {
    let source = match source {
        Some(source) => source,
        None => source.insert(store.files().open(Path::new(path))?.0),
    };
    source.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    source.take(u64::from(length)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What this process has read.
pub(super) struct Cache<T> {
    stay: Stay,
    kept: Mutex<Kept<T>>,
}

/// What stays where there is no room for all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stay {
    /// What came last, also by itself.
    Last,
    /// What came first, of files that are asked for in turn, part by part, again and again.
    First,
}

/// A file for which nobody has asked among so many questions is done with.
const DONE_WITH: u64 = 4096;

/// The latest last.
struct Kept<T> {
    entries: VecDeque<Entry<T>>,
    /// Questions so far.
    asked: u64,
}

struct Entry<T> {
    file: String,
    part: u32,
    size: usize,
    /// The last question for it.
    asked: u64,
    /// Empty while the first that asks for it reads it.
    made: Arc<Mutex<Option<Arc<T>>>>,
}

impl<T> Entry<T> {
    fn is(&self, file: &str, part: u32) -> bool {
        self.part == part && self.file == file
    }
}

impl<T> Cache<T> {
    pub(super) fn new(stay: Stay) -> Self {
        let (entries, asked) = (VecDeque::new(), 0);
        Self {
            stay,
            kept: Mutex::new(Kept { entries, asked }),
        }
    }

    /// Returns a part of a file; `make` gives it with its size, of which at most `room` are kept. Others that ask for it meanwhile wait.
    pub(super) fn get(
        &self,
        (file, part): (&str, u32),
        room: usize,
        make: impl FnOnce() -> io::Result<(T, usize)>,
    ) -> Result<Arc<T>, DataFusionError> {
        let found = self.place((file, part));
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*found {
            return Ok(Arc::clone(found));
        }
        let (made, size) = make().map_err(|error| {
            error.downcast().unwrap_or_else(|error| {
                DataFusionError::IoError(io::Error::new(error.kind(), format!("{file}: {error}")))
            })
        })?;
        let made = Arc::new(made);
        *found = Some(Arc::clone(&made));
        self.keep((file, part), size, room);
        Ok(made)
    }

    fn kept(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, (file, part): (&str, u32)) -> Arc<Mutex<Option<Arc<T>>>> {
        let mut kept = self.kept();
        let Kept { entries, asked } = &mut *kept;
        *asked += 1;
        if let Some(entry) = entries.iter_mut().find(|entry| entry.is(file, part)) {
            entry.asked = *asked;
            return Arc::clone(&entry.made);
        }
        let made = Arc::default();
        entries.push_back(Entry {
            file: file.to_owned(),
            part,
            size: 0,
            asked: *asked,
            made: Arc::clone(&made),
        });
        made
    }

    /// Notes a size; where there is more than `room`, lets go of others, the oldest first, or of what just came.
    fn keep(&self, (file, part): (&str, u32), size: usize, room: usize) {
        let mut kept = self.kept();
        let Kept { entries, asked } = &mut *kept;
        if let Some(entry) = entries.iter_mut().find(|entry| entry.is(file, part)) {
            entry.size = size;
        }
        let mut used: usize = entries.iter().map(|entry| entry.size).sum();
        while used > room {
            let goes = match self.stay {
                Stay::Last => entries.iter().position(|entry| !entry.is(file, part)),
                Stay::First => done_with(entries, *asked)
                    .or_else(|| entries.iter().position(|entry| entry.is(file, part))),
            };
            match goes.and_then(|index| entries.remove(index)) {
                Some(entry) => used -= entry.size,
                None => break,
            }
        }
    }
}

/// Returns where something of a file is for which nobody asks any more.
fn done_with<T>(entries: &VecDeque<Entry<T>>, asked: u64) -> Option<usize> {
    let last = |file: &str| {
        let of_file = entries.iter().filter(|entry| entry.file == file);
        of_file.map(|entry| entry.asked).max().unwrap_or(0)
    };
    entries
        .iter()
        .position(|entry| last(&entry.file) + DONE_WITH < asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cache: &Cache<u32>, file: &str, parts: u32, size: usize) -> u32 {
        let mut made = 0;
        for part in 0..parts {
            let make = || {
                made += 1;
                Ok((part, size))
            };
            let found = cache.get((file, part), 10, make);
            assert_eq!(*found.expect("it is made"), part);
        }
        made
    }

    #[test]
    fn what_came_first_stays_while_it_is_asked_for() {
        let cache = Cache::new(Stay::First);
        // Two files in turn, three parts of 4 where 10 have room: two stay, in each turn.
        assert_eq!(read(&cache, "one", 2, 4), 2);
        assert_eq!(read(&cache, "two", 1, 4), 1);
        for _ in 0..DONE_WITH {
            assert_eq!(read(&cache, "one", 2, 4), 0);
            assert_eq!(read(&cache, "two", 1, 4), 1);
        }
        for _ in 0..=DONE_WITH {
            read(&cache, "two", 1, 4);
        }
        assert_eq!(read(&cache, "two", 2, 4), 1);
        assert_eq!(read(&cache, "two", 2, 4), 0);
        assert_eq!(read(&cache, "large", 1, 11), 1);
        assert_eq!(read(&cache, "large", 1, 11), 1);
    }

    #[test]
    fn what_came_last_stays() {
        let cache = Cache::new(Stay::Last);
        assert_eq!(read(&cache, "one", 2, 5), 2);
        assert_eq!(read(&cache, "one", 2, 5), 0);
        assert_eq!(read(&cache, "two", 1, 11), 1);
        assert_eq!(read(&cache, "two", 1, 11), 0);
        assert_eq!(read(&cache, "one", 1, 5), 1);
    }
}
