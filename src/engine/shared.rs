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

use crate::engine::task;
use crate::store::Store;
use crate::store::files::Source;

/// Refuses a path that leaves the warehouse.
pub(super) fn check(store: &Store, path: &str) -> Result<(), DataFusionError> {
    match task::is_below(store.root(), Path::new(path)) {
        true => Ok(()),
        false => Err(DataFusionError::Plan(format!(
            "{path} is not of the warehouse"
        ))),
    }
}

/// Reads a whole file.
pub(super) fn read(store: &Store, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut source, _) = store.files().open(Path::new(path))?;
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

/// What this process has read, the latest last.
pub(super) struct Cache<T>(Mutex<VecDeque<Entry<T>>>);

struct Entry<T> {
    file: String,
    part: u32,
    size: usize,
    /// Empty while the first that asks for it reads it.
    made: Arc<Mutex<Option<Arc<T>>>>,
}

impl<T> Entry<T> {
    fn is(&self, file: &str, part: u32) -> bool {
        self.part == part && self.file == file
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Cache<T> {
    /// Returns a part of a file; `make` gives it with its size, of which at most `room` are kept. Others that ask for it meanwhile wait.
    ///
    /// Parts of a file are asked for in turn, again and again: where they have no room together, those that came first stay.
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
            DataFusionError::IoError(io::Error::new(error.kind(), format!("{file}: {error}")))
        })?;
        let made = Arc::new(made);
        *found = Some(Arc::clone(&made));
        self.keep((file, part), size, room);
        Ok(made)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Entry<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, (file, part): (&str, u32)) -> Arc<Mutex<Option<Arc<T>>>> {
        let mut kept = self.kept();
        if let Some(entry) = kept.iter().find(|entry| entry.is(file, part)) {
            return Arc::clone(&entry.made);
        }
        let made = Arc::default();
        kept.push_back(Entry {
            file: file.to_owned(),
            part,
            size: 0,
            made: Arc::clone(&made),
        });
        made
    }

    /// Notes a size; where there is more than `room`, lets go of other files, the oldest first, then of what just came.
    fn keep(&self, (file, part): (&str, u32), size: usize, room: usize) {
        let mut kept = self.kept();
        if let Some(entry) = kept.iter_mut().find(|entry| entry.is(file, part)) {
            entry.size = size;
        }
        let mut used: usize = kept.iter().map(|entry| entry.size).sum();
        while used > room {
            let other = kept.iter().position(|entry| entry.file != file);
            let own = || kept.iter().position(|entry| entry.is(file, part));
            match other.or_else(own).and_then(|index| kept.remove(index)) {
                Some(entry) => used -= entry.size,
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_together_is_kept_in_part() {
        let cache = Cache::default();
        let read = |file: &str, parts: u32, size: usize| -> u32 {
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
        };
        assert_eq!(read("old", 2, 5), 2);
        assert_eq!(read("old", 2, 5), 0);
        // Three parts of 4 where 10 have room: two stay, in each turn.
        assert_eq!(read("new", 3, 4), 3);
        assert_eq!(read("new", 3, 4), 1);
        assert_eq!(read("new", 3, 4), 1);
        assert_eq!(read("old", 2, 5), 2);
        assert_eq!(read("large", 1, 11), 1);
        assert_eq!(read("large", 1, 11), 1);
    }
}
