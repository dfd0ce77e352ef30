//! E-steps of topic models as tasks.
//!
//! ```text
//! driver                                             worker
//!  corpus ─► one file of shards, once a corpus  ───►  shards, kept while there is room (`Cache`)
//!  S ─► φ, a file a step                        ───►  φ, read once a process
//!  S  ◄── added, exact in any order  ◄──────────────  rows (word, counts of its topics); rows (shard, likelihoods)
//! ```

use std::collections::VecDeque;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;

use arrow::array::Array as _;
use arrow::array::AsArray as _;
use arrow::array::FixedSizeListArray;
use arrow::array::Float64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::array::UInt32Array;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Float64Type;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::UInt32Type;
use datafusion::error::DataFusionError;
use serde::Deserialize;
use serde::Serialize;

use crate::engine::Sink;
use crate::engine::task;
use crate::ml::lda;
use crate::ml::lda::EStep;
use crate::ml::lda::ShardData;
use crate::ml::lda::Sums;
use crate::ml::lda::Topics;
use crate::store::Store;
use crate::store::files::Source;

/// An E-step.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FoldSpec {
    /// File of the warehouse with the shards.
    pub corpus: String,
    /// File of the warehouse with φ.
    pub topics: String,
    /// K: numbers of a row.
    pub width: u32,
    /// Bits of the numbers of [`EStep`], which texts would change in the last place.
    pub document_pseudo_count: u32,
    /// The same.
    pub weight: u64,
}

/// Where a shard lies: its number, its place in the list that was asked for, first byte, bytes.
pub type Place = (u32, u32, u64, u32);

/// Rows of a batch: a message holds some megabytes.
const BATCH_WORDS: usize = 8192;

/// Rows are a word, or the place of a shard in the list, and numbers of it.
pub(super) fn schema(width: u32) -> SchemaRef {
    let number = |name| Field::new(name, DataType::UInt32, true);
    let numbers = DataType::FixedSizeList(item(), i32::try_from(size(width)).unwrap_or(i32::MAX));
    Arc::new(Schema::new(vec![
        number("word"),
        number("shard"),
        Field::new("numbers", numbers, false),
    ]))
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float64, false))
}

/// Two are needed for the likelihoods of a shard.
fn size(width: u32) -> usize {
    width.max(2) as usize
}

/// Does the tasks of a batch: each row is a list of places.
pub(super) fn run(
    spec: &FoldSpec,
    batch: &RecordBatch,
    (store, cache_bytes): (&Store, usize),
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let texts = batch.column(0).as_any().downcast_ref::<StringArray>();
    let texts = texts.ok_or_else(|| DataFusionError::Internal("places are texts".to_owned()))?;
    let mut done = Vec::new();
    for text in texts.iter().flatten() {
        let places: Vec<Place> = serde_json::from_str(text).map_err(task::external)?;
        done.extend(fold(spec, &places, (store, cache_bytes))?);
    }
    Ok(done)
}

fn fold(
    spec: &FoldSpec,
    places: &[Place],
    (store, cache_bytes): (&Store, usize),
) -> Result<Vec<RecordBatch>, DataFusionError> {
    for path in [&spec.corpus, &spec.topics] {
        if !task::is_below(store.root(), Path::new(path)) {
            let text = format!("{path} is not of the warehouse");
            return Err(DataFusionError::Plan(text));
        }
    }
    let topics = TOPICS.get(&spec.topics, TOPICS_KEPT, || {
        let bytes = read(store, &spec.topics, None)?;
        Ok((Topics::of_bytes(&bytes).map_err(invalid)?, 1))
    })?;
    let mut reader = None;
    let mut shards = Vec::with_capacity(places.len());
    for &(number, _, from, bytes) in places {
        let name = format!("{number} {}", spec.corpus);
        shards.push(SHARDS.get(&name, cache_bytes, || {
            let bytes = read(store, &spec.corpus, Some((&mut reader, from, bytes)))?;
            let shard = ShardData::of_bytes(&bytes, topics.words()).map_err(invalid)?;
            let memory = shard.memory();
            Ok((shard, memory))
        })?);
    }
    let step = EStep {
        document_pseudo_count: f32::from_bits(spec.document_pseudo_count),
        weight: f64::from_bits(spec.weight),
    };
    rows(spec.width, &lda::e_step(&shards, &topics, step), places)
}

/// Words without counts have no row.
fn rows(width: u32, sums: &Sums, places: &[Place]) -> Result<Vec<RecordBatch>, DataFusionError> {
    let (topics, size) = (width as usize, size(width));
    let padded = |values: &[f64], numbers: &mut Vec<f64>| {
        numbers.extend(values);
        numbers.resize(numbers.len() + size - values.len(), 0.0);
    };
    let mut batches = Vec::new();
    let mut words: Vec<Option<u32>> = Vec::new();
    let mut numbers = Vec::new();
    for (word, values) in (0..).zip(sums.cells.chunks_exact(topics.max(1))) {
        if values.iter().any(|&value| value != 0.0) {
            words.push(Some(word));
            padded(values, &mut numbers);
        }
        if words.len() == BATCH_WORDS {
            let shards = vec![None; BATCH_WORDS];
            let (words, numbers) = (std::mem::take(&mut words), std::mem::take(&mut numbers));
            batches.push(batch(width, (words, shards), numbers)?);
        }
    }
    let mut shards = vec![None; words.len()];
    for (&(_, place, ..), likelihoods) in places.iter().zip(&sums.likelihoods) {
        words.push(None);
        shards.push(Some(place));
        padded(likelihoods, &mut numbers);
    }
    batches.push(batch(width, (words, shards), numbers)?);
    Ok(batches)
}

fn batch(
    width: u32,
    (words, shards): (Vec<Option<u32>>, Vec<Option<u32>>),
    numbers: Vec<f64>,
) -> Result<RecordBatch, DataFusionError> {
    let size = i32::try_from(size(width)).unwrap_or(i32::MAX);
    let values = Arc::new(Float64Array::from(numbers));
    let numbers = FixedSizeListArray::try_new(item(), size, values, None)?;
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(UInt32Array::from(words)),
        Arc::new(UInt32Array::from(shards)),
        Arc::new(numbers),
    ];
    Ok(RecordBatch::try_new(schema(width), columns)?)
}

/// Adds up the rows of an E-step.
pub(super) struct Summed {
    topics: usize,
    words: usize,
    pub(super) sums: Sums,
    /// Shards whose likelihoods have come.
    pub(super) shards: usize,
}

impl Summed {
    pub(super) fn new((words, topics): (usize, usize), shards: usize) -> Self {
        let sums = Sums {
            cells: Vec::new(),
            likelihoods: vec![[0.0; 2]; shards],
        };
        Self {
            topics,
            words,
            sums,
            shards: 0,
        }
    }
}

impl Sink for Summed {
    fn begin(&mut self) {
        self.sums.cells = vec![0.0; self.words * self.topics];
        self.shards = 0;
    }

    fn add(&mut self, batch: RecordBatch) -> Result<(), DataFusionError> {
        let wrong = || DataFusionError::Internal("sums have unexpected columns".to_owned());
        let number = |index| {
            batch
                .column(index)
                .as_primitive_opt::<UInt32Type>()
                .ok_or_else(wrong)
        };
        let (words, shards) = (number(0)?, number(1)?);
        let list = batch.column(2).as_fixed_size_list_opt().ok_or_else(wrong)?;
        let size = usize::try_from(list.value_length()).unwrap_or(0);
        let numbers = list
            .values()
            .as_primitive_opt::<Float64Type>()
            .ok_or_else(wrong)?;
        if size < self.topics.max(2) {
            return Err(wrong());
        }
        let rows = numbers.values().chunks_exact(size).skip(list.offset());
        for (row, numbers) in rows.take(batch.num_rows()).enumerate() {
            if words.is_valid(row) {
                let start = words.value(row) as usize * self.topics;
                let cells = self.sums.cells.get_mut(start..start + self.topics);
                let cells = cells.ok_or_else(wrong)?.iter_mut();
                cells.zip(numbers).for_each(|(cell, value)| *cell += value);
            } else {
                let place = shards.value(row) as usize;
                let known = self.sums.likelihoods.get_mut(place).ok_or_else(wrong)?;
                *known = [numbers[0], numbers[1]];
                self.shards += 1;
            }
        }
        Ok(())
    }
}

fn invalid(error: lda::Damaged) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// A part of a file that stays open in between, or all of it.
type Part<'a> = (&'a mut Option<Box<dyn Source>>, u64, u32);

fn read(store: &Store, path: &str, part: Option<Part<'_>>) -> io::Result<Vec<u8>> {
    let open = || store.files().open(Path::new(path));
    let mut bytes = Vec::new();
    match part {
        None => open()?.0.read_to_end(&mut bytes).map(drop)?,
        Some((reader, from, length)) => {
            let reader = match reader {
                Some(reader) => reader,
                None => reader.insert(open()?.0),
            };
            reader.seek(SeekFrom::Start(from))?;
            reader
                .take(u64::from(length))
                .read_to_end(&mut bytes)
                .map(drop)?;
        }
    }
    Ok(bytes)
}

/// What this process has read, the latest last.
struct Cache<T>(Mutex<VecDeque<(String, usize, Arc<T>)>>);

/// Tables of φ that are kept: as many as models that are trained at a time, and some.
const TOPICS_KEPT: usize = 8;
static TOPICS: LazyLock<Cache<Topics>> = LazyLock::new(Cache::default);
static SHARDS: LazyLock<Cache<ShardData>> = LazyLock::new(Cache::default);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Cache<T> {
    /// Returns what has a name; `make` gives it with its size, of which at most `room` are kept.
    fn get(
        &self,
        name: &str,
        room: usize,
        make: impl FnOnce() -> io::Result<(T, usize)>,
    ) -> Result<Arc<T>, DataFusionError> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., found)) = lock().iter().find(|(known, ..)| known == name) {
            return Ok(Arc::clone(found));
        }
        let (made, size) = make().map_err(|error| {
            DataFusionError::IoError(io::Error::new(error.kind(), format!("{name}: {error}")))
        })?;
        let made = Arc::new(made);
        let mut kept = lock();
        kept.push_back((name.to_owned(), size, Arc::clone(&made)));
        let mut used: usize = kept.iter().map(|(_, size, _)| size).sum();
        while used > room
            && let Some((_, size, _)) = kept.pop_front()
        {
            used -= size;
        }
        Ok(made)
    }
}
