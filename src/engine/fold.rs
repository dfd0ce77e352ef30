//! E-steps of topic models as tasks.
//!
//! ```text
//! driver                                             worker
//!  corpus ─► one file of shards, once a corpus  ───►  shards, kept while there is room (`Cache`)
//!  S ─► φ, a file a step                        ───►  φ, read once a process
//!  S  ◄── added, exact in any order  ◄──────────────  rows (word, counts of its topics); rows (shard, likelihoods)
//! ```

use std::io;
use std::sync::Arc;
use std::sync::LazyLock;

use arrow::array::Array as _;
use arrow::array::AsArray as _;
use arrow::array::FixedSizeListArray;
use arrow::array::Float64Array;
use arrow::array::RecordBatch;
use arrow::array::UInt32Array;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Float64Type;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::UInt32Type;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use serde::Deserialize;
use serde::Serialize;

use crate::engine::Sink;
use crate::engine::shared;
use crate::engine::shared::Cache;
use crate::engine::shared::Stay;
use crate::engine::task;
use crate::ml::lda;
use crate::ml::lda::EStep;
use crate::ml::lda::ShardData;
use crate::ml::lda::Sums;
use crate::ml::lda::Topics;
use crate::store::Store;

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
    /// Tokens of the corpus.
    pub tokens: u64,
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
    memory: &MemoryReservation,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let mut done = Vec::new();
    for places in task::of_texts::<Vec<Place>>(batch)? {
        done.extend(fold(spec, &places, (store, cache_bytes), memory)?);
    }
    Ok(done)
}

fn fold(
    spec: &FoldSpec,
    places: &[Place],
    (store, cache_bytes): (&Store, usize),
    memory: &MemoryReservation,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    for path in [&spec.corpus, &spec.topics] {
        shared::check(store, path)?;
    }
    let room = cache_bytes / 4;
    // φ beyond its room, and sums of the same shape in numbers of twice the size.
    let ask = |phi: usize| {
        let needed = phi.saturating_mul(2) + phi.saturating_sub(room);
        task::reserve(memory, needed, || {
            let width = spec.width;
            format!(
                "{width} topics in {} MiB (or train in the driver: cluster.train_from)",
                phi >> 20
            )
        })
    };
    let topics = TOPICS.get((&spec.topics, 0), room, || {
        let bytes = shared::read(store, &spec.topics, ask)?;
        Ok((Topics::of_bytes(&bytes).map_err(invalid)?, bytes.len()))
    })?;
    let step = EStep {
        document_pseudo_count: f32::from_bits(spec.document_pseudo_count),
        weight: f64::from_bits(spec.weight),
        tokens: spec.tokens,
    };
    let mut reader = None;
    ask(topics.words().len() * topics.topics() * size_of::<f32>())?;
    let mut sums = Sums::none(&topics);
    for &(number, _, from, bytes) in places {
        let shard = SHARDS.get((&spec.corpus, number), cache_bytes / 4 * 3, || {
            let bytes = shared::read_part(store, &spec.corpus, &mut reader, (from, bytes))?;
            let shard = ShardData::of_bytes(&bytes).map_err(invalid)?;
            let memory = shard.memory();
            Ok((shard, memory))
        })?;
        sums.fold(&shard, &topics, step).map_err(invalid)?;
    }
    rows(&topics, &sums, places)
}

/// Words without counts have no row.
fn rows(
    table: &Topics,
    sums: &Sums,
    places: &[Place],
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let topics = table.topics();
    let width = u32::try_from(topics).unwrap_or(u32::MAX);
    let size = size(width);
    let padded = |values: &[f64], numbers: &mut Vec<f64>| {
        numbers.extend(values);
        numbers.resize(numbers.len() + size - values.len(), 0.0);
    };
    let mut batches = Vec::new();
    let mut words: Vec<Option<u32>> = Vec::new();
    let mut numbers = Vec::new();
    for (&word, values) in table.words().iter().zip(sums.cells.chunks_exact(topics)) {
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
pub(super) struct Summed<'a> {
    table: &'a Topics,
    pub(super) sums: Sums,
    /// Shards whose likelihoods have come.
    seen: Vec<bool>,
}

impl<'a> Summed<'a> {
    pub(super) fn new(table: &'a Topics, shards: usize) -> Self {
        let sums = Sums {
            cells: Vec::new(),
            likelihoods: vec![[0.0; 2]; shards],
        };
        Self {
            table,
            sums,
            seen: vec![false; shards],
        }
    }

    /// Returns how many shards have come.
    pub(super) fn shards(&self) -> usize {
        self.seen.iter().filter(|&&seen| seen).count()
    }
}

impl Sink for Summed<'_> {
    fn begin(&mut self) {
        self.sums.cells = vec![0.0; self.table.words().len() * self.table.topics()];
        self.seen.fill(false);
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
        if size < self.table.topics().max(2) {
            return Err(wrong());
        }
        let rows = numbers.values().chunks_exact(size).skip(list.offset());
        for (row, numbers) in rows.take(batch.num_rows()).enumerate() {
            if words.is_valid(row) {
                let known = self.table.words().binary_search(&words.value(row));
                let topics = self.table.topics();
                let start = known.map_err(|_| wrong())? * topics;
                let cells = self.sums.cells[start..start + topics].iter_mut();
                cells.zip(numbers).for_each(|(cell, value)| *cell += value);
            } else {
                let place = shards.value(row) as usize;
                let seen = self.seen.get_mut(place).ok_or_else(wrong)?;
                if std::mem::replace(seen, true) {
                    let text = format!("shard {place} was folded in twice");
                    return Err(DataFusionError::Internal(text));
                }
                self.sums.likelihoods[place] = [numbers[0], numbers[1]];
            }
        }
        Ok(())
    }
}

fn invalid(error: lda::Damaged) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Tables of φ are asked for by the tasks of one step, shards in each step; of the room that a worker has for both, the tables take
/// up to a quarter.
static TOPICS: LazyLock<Cache<Topics>> = LazyLock::new(|| Cache::new(Stay::Last));
static SHARDS: LazyLock<Cache<ShardData>> = LazyLock::new(|| Cache::new(Stay::First));
