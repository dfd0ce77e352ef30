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
    name: String,
    size: usize,
    /// Empty while the first that asks for it reads it.
    made: Arc<Mutex<Option<Arc<T>>>>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Cache<T> {
    /// Returns what has a name; `make` gives it with its size, of which at most `room` are kept. Others that ask for it meanwhile wait.
    pub(super) fn get(
        &self,
        name: &str,
        room: usize,
        make: impl FnOnce() -> io::Result<(T, usize)>,
    ) -> Result<Arc<T>, DataFusionError> {
        let found = self.place(name);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*found {
            return Ok(Arc::clone(found));
        }
        let (made, size) = make().map_err(|error| {
            DataFusionError::IoError(io::Error::new(error.kind(), format!("{name}: {error}")))
        })?;
        let made = Arc::new(made);
        *found = Some(Arc::clone(&made));
        self.keep(name, size, room);
        Ok(made)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Entry<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, name: &str) -> Arc<Mutex<Option<Arc<T>>>> {
        let mut kept = self.kept();
        if let Some(entry) = kept.iter().find(|entry| entry.name == name) {
            return Arc::clone(&entry.made);
        }
        let made = Arc::default();
        kept.push_back(Entry {
            name: name.to_owned(),
            size: 0,
            made: Arc::clone(&made),
        });
        made
    }

    /// Notes a size, and lets go of the oldest where there is more than `room`.
    fn keep(&self, name: &str, size: usize, room: usize) {
        let mut kept = self.kept();
        if let Some(entry) = kept.iter_mut().find(|entry| entry.name == name) {
            entry.size = size;
        }
        let mut used: usize = kept.iter().map(|entry| entry.size).sum();
        while used > room
            && let Some(entry) = kept.pop_front()
        {
            used -= entry.size;
        }
    }
}
