//! Columns of values that need not fit into memory: where many take more than their room, the next lie in files without a name, of
//! which the operating system keeps in memory what is used. Which of the two a column is cannot be told from what is in it.
#![expect(unsafe_code, reason = "a file as a slice")]

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ops::DerefMut;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use memmap2::MmapMut;
use rustix::fs::FallocateFlags;

/// Columns grow by doubling, from and to so many bytes at a time.
const GROWTH_MIN: usize = 4 << 10;
const GROWTH_MAX: usize = 1 << 30;

/// How much memory some columns may take, and where the others lie.
#[derive(Debug)]
pub struct Room {
    folder: PathBuf,
    bytes: u64,
    taken: AtomicU64,
    files: AtomicU64,
}

/// A column has no room.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{folder}: no room for {bytes} bytes that do not fit into memory: {reason}")]
pub struct RoomError {
    /// Where there is no room.
    pub folder: String,
    /// Of the column, with those asked for.
    pub bytes: usize,
    /// What the file system says.
    pub reason: String,
    /// The kind of it.
    pub kind: io::ErrorKind,
}

impl From<RoomError> for io::Error {
    fn from(error: RoomError) -> Self {
        Self::new(error.kind, error)
    }
}

impl Room {
    /// `bytes` of memory, then files in `folder`, which is made when it is needed.
    #[must_use]
    pub fn new(folder: &Path, bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            bytes,
            taken: AtomicU64::new(0),
            files: AtomicU64::new(0),
        })
    }

    /// All memory that there is.
    #[must_use]
    pub fn memory() -> Arc<Self> {
        Self::new(Path::new(""), u64::MAX)
    }

    /// Returns how many columns lay in files.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Takes memory, where there is so much.
    fn take(&self, bytes: u64) -> bool {
        let with = |taken: u64| taken.checked_add(bytes).filter(|&all| all <= self.bytes);
        let order = Ordering::Relaxed;
        self.taken.fetch_update(order, order, with).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes a file that is gone when it is closed.
    fn file(&self) -> io::Result<File> {
        std::fs::create_dir_all(&self.folder)?;
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let own = std::ptr::from_ref(self).addr();
        let name = format!("column-{}-{own:x}-{number}", std::process::id());
        let path = self.folder.join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

/// Values in memory, or in a file.
pub struct Column<T> {
    room: Arc<Room>,
    place: Place<T>,
    /// Bytes of memory that it has taken.
    taken: u64,
}

enum Place<T> {
    Memory(Vec<T>),
    File(Mapped<T>),
}

struct Mapped<T> {
    file: File,
    /// At least as long as the values; the start of a page, so that every T is aligned.
    map: MmapMut,
    length: usize,
    values: PhantomData<T>,
}

impl<T: Copy> Column<T> {
    /// Makes an empty column.
    #[must_use]
    pub fn new(room: &Arc<Room>) -> Self {
        Self {
            room: Arc::clone(room),
            place: Place::Memory(Vec::new()),
            taken: 0,
        }
    }

    /// The same, for about `capacity` values.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn with_capacity(room: &Arc<Room>, capacity: usize) -> Result<Self, RoomError> {
        let mut column = Self::new(room);
        column.reserve(capacity)?;
        Ok(column)
    }

    /// Makes a column of `length` equal values.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn filled(room: &Arc<Room>, value: T, length: usize) -> Result<Self, RoomError> {
        Self::of(room, std::iter::repeat_n(value, length))
    }

    /// Makes a column of `values`.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn of(room: &Arc<Room>, values: impl IntoIterator<Item = T>) -> Result<Self, RoomError> {
        let mut column = Self::new(room);
        column.extend(values)?;
        Ok(column)
    }

    /// Adds `values` at the end.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn extend(&mut self, values: impl IntoIterator<Item = T>) -> Result<(), RoomError> {
        let values = values.into_iter();
        self.reserve(values.size_hint().0)?;
        for value in values {
            self.push(value)?;
        }
        Ok(())
    }

    /// Adds a value at the end.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn push(&mut self, value: T) -> Result<(), RoomError> {
        if self.len() == self.capacity() {
            let size = size_of::<T>().max(1);
            let more = (self.len() * size).clamp(GROWTH_MIN, GROWTH_MAX) / size;
            self.reserve(more.max(1))?;
        }
        match &mut self.place {
            Place::Memory(values) => values.push(value),
            Place::File(mapped) => mapped.push(value),
        }
        Ok(())
    }

    /// Returns the room that it is in.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    fn capacity(&self) -> usize {
        match &self.place {
            Place::Memory(values) => values.capacity(),
            Place::File(mapped) => mapped.map.len() / size_of::<T>().max(1),
        }
    }

    fn reserve(&mut self, more: usize) -> Result<(), RoomError> {
        let wanted = self.len() + more;
        if wanted <= self.capacity() {
            return Ok(());
        }
        let bytes = wanted * size_of::<T>();
        let fail = |room: &Room, error: &io::Error| RoomError {
            folder: room.folder.display().to_string(),
            bytes,
            reason: error.to_string(),
            kind: error.kind(),
        };
        match &mut self.place {
            Place::Memory(values) => {
                let missing = (bytes as u64).saturating_sub(self.taken);
                if self.room.take(missing) {
                    self.taken += missing;
                    values.reserve_exact(wanted - values.len());
                    return Ok(());
                }
                let mapped = Mapped::of(&self.room, values, bytes);
                self.place = Place::File(mapped.map_err(|error| fail(&self.room, &error))?);
                self.room.give_back(std::mem::take(&mut self.taken));
                Ok(())
            }
            Place::File(mapped) => mapped.grow(bytes).map_err(|error| fail(&self.room, &error)),
        }
    }
}

impl<T> Drop for Column<T> {
    fn drop(&mut self) {
        self.room.give_back(self.taken);
    }
}

impl<T: Copy> Mapped<T> {
    fn of(room: &Room, values: &[T], bytes: usize) -> io::Result<Self> {
        let file = room.file()?;
        let map = mapped(&file, 0, bytes)?;
        let mut column = Self {
            file,
            map,
            length: 0,
            values: PhantomData,
        };
        values.iter().for_each(|&value| column.push(value));
        Ok(column)
    }

    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        self.map = mapped(&self.file, self.map.len(), bytes)?;
        Ok(())
    }

    /// There must be room for it.
    fn push(&mut self, value: T) {
        let start = self.length * size_of::<T>();
        assert!(start + size_of::<T>() <= self.map.len(), "no room");
        // SAFETY: within the map, as asserted, and aligned: see the field.
        unsafe {
            self.map
                .as_mut_ptr()
                .cast::<T>()
                .add(self.length)
                .write(value);
        }
        self.length += 1;
    }
}

/// Maps a file that nobody else can open. Its blocks are taken before it is written to: a full disk is an error here, not a signal at
/// some later write.
fn mapped(file: &File, old: usize, bytes: usize) -> io::Result<MmapMut> {
    let (old, more) = (old as u64, (bytes - old) as u64);
    match rustix::fs::fallocate(file, FallocateFlags::empty(), old, more) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => fill(file, old, more)?,
        done => done?,
    }
    // SAFETY: the file has no name and no other descriptor, so nothing else changes it or its length.
    unsafe { MmapMut::map_mut(file) }
}

/// Takes blocks where the file system can take none without writing to them, as NFS before 4.2.
fn fill(mut file: &File, from: u64, bytes: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    io::copy(&mut io::repeat(0).take(bytes), &mut file)?;
    file.sync_data()
}

impl<T> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.place {
            Place::Memory(values) => values,
            // SAFETY: `push` wrote so many values, one after the other, from the start of the map.
            Place::File(Mapped { map, length, .. }) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast(), *length)
            },
        }
    }
}

impl<T> DerefMut for Column<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.place {
            Place::Memory(values) => values,
            // SAFETY: as above; the map is borrowed as a whole.
            Place::File(Mapped { map, length, .. }) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), *length)
            },
        }
    }
}

impl<'a, T> IntoIterator for &'a Column<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(column: &Column<(u128, u32)>) -> Vec<(u128, u32)> {
        column.to_vec()
    }

    #[test]
    fn a_column_is_the_same_in_memory_and_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let wanted: Vec<(u128, u32)> = (0..5000_u32)
            .map(|number| (u128::from(number.wrapping_mul(2_654_435_761)) << 70, number))
            .collect();
        for bytes in [0, 1000, 50_000, u64::MAX] {
            let room = Room::new(&folder.path().join("new"), bytes);
            let mut column = Column::new(&room);
            for &value in &wanted {
                column.push(value).unwrap();
            }
            assert_eq!(values(&column), wanted);
            column.sort_unstable();
            let mut sorted = wanted.clone();
            sorted.sort_unstable();
            assert_eq!(values(&column), sorted);
            let both = Column::of(&room, wanted.iter().chain(&sorted).copied()).unwrap();
            assert_eq!(both.len(), 10_000);
            assert_eq!(both[5000..], sorted[..]);
            let is_small = bytes < u64::MAX;
            assert_eq!(room.files() > 0, is_small, "{bytes}");
            drop((column, both));
            assert_eq!(room.taken.load(Ordering::Relaxed), 0);
        }
        let left = std::fs::read_dir(folder.path().join("new")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn empty_columns_have_no_file() {
        let room = Room::new(Path::new("/nowhere"), 0);
        let column = Column::<u64>::filled(&room, 7, 0).unwrap();
        assert!(column.is_empty());
        assert_eq!(room.files(), 0);
    }

    #[test]
    fn blocks_are_taken_by_writing_where_there_is_no_other_way() {
        let file = tempfile::tempfile().unwrap();
        fill(&file, 0, 10_000).unwrap();
        fill(&file, 10_000, 5).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10_005);
        // What is asked of a full device.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = fill(&full, 0, 10_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn no_room_is_an_error() {
        let room = Room::new(Path::new("/proc/nowhere"), 0);
        let error = Column::filled(&room, 7_u64, 3).unwrap_err();
        assert_eq!(error.bytes, 24);
        assert!(
            error
                .to_string()
                .starts_with("/proc/nowhere: no room for 24 bytes")
        );
    }
}
