//! E-steps of topic models as tasks.
//!
//! ```text
//! driver                                             worker
//!  corpus ─► one file of shards, once a corpus  ───►  shards, kept while there is room (`Cache`)
//!  S ─► φ, a file a step                        ───►  φ, read once a process
//!  S  ◄── added, exact in any order  ◄──────────────  rows (word, digit, counts of its topics); rows (shard, likelihoods)
//! ```
//! Counts are multiples of a power of two (`EStep::unit`). Most are small: they travel as digits to the base 2^32, the second only where
//! a word has one, which halves what is compressed, encrypted and sent.

use std::io;
use std::sync::Arc;
use std::sync::LazyLock;

use arrow::array::Array;
use arrow::array::AsArray as _;
use arrow::array::FixedSizeListArray;
use arrow::array::RecordBatch;
use arrow::array::UInt32Array;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
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
    /// Tokens of the corpus.
    pub tokens: u64,
}

/// Where a shard lies: its number, its place in the list that was asked for, first byte, bytes.
pub type Place = (u32, u32, u64, u32);

/// Rows of a batch: a message holds some megabytes.
const BATCH_ROWS: usize = 8192;

/// Rows are a word, the place of a digit and that digit of its counts; or no word, the place of a shard in the list, and the bits of its
/// likelihoods.
pub(super) fn schema(width: u32) -> SchemaRef {
    let numbers = DataType::FixedSizeList(item(), i32::try_from(size(width)).unwrap_or(i32::MAX));
    Arc::new(Schema::new(vec![
        Field::new("word", DataType::UInt32, true),
        Field::new("place", DataType::UInt32, false),
        Field::new("numbers", numbers, false),
    ]))
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::UInt32, false))
}

/// Four are needed for the two likelihoods of a shard.
fn size(width: u32) -> usize {
    width.max(4) as usize
}

/// What a digit is multiplied by, for each place.
const DIGITS: [f64; 2] = [1.0, 4_294_967_296.0];

/// Does the E-step of some shards.
pub(super) fn run(
    spec: &FoldSpec,
    places: &[Place],
    (store, cache_bytes): (&Store, usize),
    memory: &MemoryReservation,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let room = room_of_topics(cache_bytes);
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
    let tables = topics((store, &spec.topics), cache_bytes, ask)?;
    let [topics] = &tables[..] else {
        return Err(DataFusionError::Internal("φ is not there once".to_owned()));
    };
    let step = EStep {
        document_pseudo_count: f32::from_bits(spec.document_pseudo_count),
        weight: f64::from_bits(spec.weight),
        tokens: spec.tokens,
    };
    let mut reader = None;
    ask(topics.memory())?;
    let mut sums = Sums::none(topics);
    for &place in places {
        let shard = shard((store, &spec.corpus), cache_bytes, (place, &mut reader))?;
        sums.fold(&shard, topics, step).map_err(invalid)?;
    }
    rows(topics, &sums, places, step)
}

/// Returns how much of what is kept may be φ.
pub(super) fn room_of_topics(cache_bytes: usize) -> usize {
    cache_bytes / 4
}

/// Returns the tables of φ of a file; `ask` is told its length before it is read.
pub(super) fn topics(
    (store, path): (&Store, &str),
    cache_bytes: usize,
    ask: impl FnOnce(usize) -> Result<(), DataFusionError>,
) -> Result<Arc<Vec<Topics>>, DataFusionError> {
    TOPICS.get((path, 0), room_of_topics(cache_bytes), || {
        let bytes = shared::read(store, path, ask)?;
        Ok((Topics::all_of_bytes(&bytes).map_err(invalid)?, bytes.len()))
    })
}

/// Returns a shard of the file of a corpus; `reader` stays open for the next one.
pub(super) fn shard(
    (store, corpus): (&Store, &str),
    cache_bytes: usize,
    (place, reader): (Place, &mut Option<Box<dyn Source>>),
) -> Result<Arc<ShardData>, DataFusionError> {
    let (number, _, from, bytes) = place;
    SHARDS.get((corpus, number), cache_bytes / 4 * 3, || {
        let bytes = shared::read_part(store, corpus, reader, (from, bytes))?;
        let shard = ShardData::of_bytes(&bytes).map_err(invalid)?;
        let memory = shard.memory();
        Ok((shard, memory))
    })
}

/// Words without counts have no row.
fn rows(
    table: &Topics,
    sums: &Sums,
    places: &[Place],
    step: EStep,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let topics = table.topics();
    let mut rows = Rows::new(u32::try_from(topics).unwrap_or(u32::MAX));
    let unit = step.unit();
    let mut counts = vec![0; topics];
    for (&word, values) in table.words().iter().zip(sums.cells.chunks_exact(topics)) {
        let mut any = 0;
        for (count, value) in counts.iter_mut().zip(values) {
            *count = units(value / unit)?;
            any |= *count;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a digit")]
        let digit = |count: u64, place: u32| (count >> (32 * place)) as u32;
        for place in (0..2).filter(|&place| digit(any, place) != 0) {
            let digits = counts.iter().map(|&count| digit(count, place));
            rows.push(Some(word), place, digits)?;
        }
    }
    for (&(_, place, ..), likelihoods) in places.iter().zip(&sums.likelihoods) {
        let bits = likelihoods.iter().flat_map(|value| {
            let [b0, b1, b2, b3, b4, b5, b6, b7] = value.to_bits().to_le_bytes();
            [[b0, b1, b2, b3], [b4, b5, b6, b7]].map(u32::from_le_bytes)
        });
        rows.push(None, place, bits)?;
    }
    rows.finish()
}

/// Returns a count in units of what it is a multiple of.
fn units(count: f64) -> Result<u64, DataFusionError> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "checked by the way back"
    )]
    let (units, back) = (count as u64, (count as u64) as f64);
    #[expect(clippy::float_cmp, reason = "it is exact")]
    match back == count {
        true => Ok(units),
        false => Err(DataFusionError::Internal(format!(
            "{count} is no whole count"
        ))),
    }
}

/// Batches that are being made.
struct Rows {
    width: u32,
    words: Vec<Option<u32>>,
    places: Vec<u32>,
    numbers: Vec<u32>,
    batches: Vec<RecordBatch>,
}

impl Rows {
    fn new(width: u32) -> Self {
        Self {
            width,
            words: Vec::new(),
            places: Vec::new(),
            numbers: Vec::new(),
            batches: Vec::new(),
        }
    }

    fn push(
        &mut self,
        word: Option<u32>,
        place: u32,
        numbers: impl Iterator<Item = u32>,
    ) -> Result<(), DataFusionError> {
        self.words.push(word);
        self.places.push(place);
        self.numbers.extend(numbers);
        self.numbers.resize(self.words.len() * size(self.width), 0);
        match self.words.len() {
            BATCH_ROWS => self.end_batch(),
            _ => Ok(()),
        }
    }

    fn end_batch(&mut self) -> Result<(), DataFusionError> {
        let size = i32::try_from(size(self.width)).unwrap_or(i32::MAX);
        let values = Arc::new(UInt32Array::from(std::mem::take(&mut self.numbers)));
        let numbers = FixedSizeListArray::try_new(item(), size, values, None)?;
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(UInt32Array::from(std::mem::take(&mut self.words))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.places))),
            Arc::new(numbers),
        ];
        let batch = RecordBatch::try_new(schema(self.width), columns)?;
        self.batches.push(batch);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<RecordBatch>, DataFusionError> {
        if !self.words.is_empty() {
            self.end_batch()?;
        }
        Ok(self.batches)
    }
}

/// Adds up the rows of an E-step.
pub(super) struct Summed<'a> {
    table: &'a Topics,
    /// What counts are multiples of.
    unit: f64,
    pub(super) sums: Sums,
    /// Shards whose likelihoods have come.
    seen: Vec<bool>,
}

impl<'a> Summed<'a> {
    pub(super) fn new(table: &'a Topics, shards: usize, step: EStep) -> Self {
        let sums = Sums {
            cells: Vec::new(),
            likelihoods: vec![[0.0; 2]; shards],
        };
        Self {
            table,
            unit: step.unit(),
            sums,
            seen: vec![false; shards],
        }
    }

    /// Returns how many shards have come.
    pub(super) fn shards(&self) -> usize {
        self.seen.iter().filter(|&&seen| seen).count()
    }

    fn add_shard(&mut self, place: u32, numbers: &[u32]) -> Result<(), DataFusionError> {
        let place = place as usize;
        let seen = self.seen.get_mut(place).ok_or_else(wrong)?;
        if std::mem::replace(seen, true) {
            let text = format!("shard {place} was folded in twice");
            return Err(DataFusionError::Internal(text));
        }
        let (bits, _) = numbers.as_chunks::<2>();
        for (likelihood, [low, high]) in self.sums.likelihoods[place].iter_mut().zip(bits) {
            *likelihood = f64::from_bits(u64::from(*low) | u64::from(*high) << 32);
        }
        Ok(())
    }
}

fn wrong() -> DataFusionError {
    DataFusionError::Internal("sums have unexpected columns".to_owned())
}

impl Sink for Summed<'_> {
    fn begin(&mut self) {
        self.sums.cells = vec![0.0; self.table.words().len() * self.table.topics()];
        self.seen.fill(false);
    }

    fn add(&mut self, batch: RecordBatch) -> Result<(), DataFusionError> {
        let numbers_of = |array: &dyn Array| {
            let numbers = array.as_primitive_opt::<UInt32Type>();
            numbers.cloned().ok_or_else(wrong)
        };
        let (words, places) = (numbers_of(batch.column(0))?, numbers_of(batch.column(1))?);
        let list = batch.column(2).as_fixed_size_list_opt().ok_or_else(wrong)?;
        let numbers = numbers_of(list.values())?;
        let size = usize::try_from(list.value_length()).unwrap_or(0);
        let topics = self.table.topics();
        if size < topics.max(4) {
            return Err(wrong());
        }
        let rows = numbers.values().chunks_exact(size).skip(list.offset());
        let mut row_of = RowOf::new(self.table.words());
        for (row, numbers) in rows.take(batch.num_rows()).enumerate() {
            let place = places.value(row);
            if words.is_null(row) {
                self.add_shard(place, numbers)?;
                continue;
            }
            let digit = DIGITS.get(place as usize).ok_or_else(wrong)?;
            let start = row_of.get(words.value(row)).ok_or_else(wrong)? * topics;
            let cells = self.sums.cells[start..start + topics].iter_mut();
            for (cell, &number) in cells.zip(numbers) {
                *cell += f64::from(number) * digit * self.unit;
            }
        }
        Ok(())
    }
}

/// Rows of a table by their words, which mostly come in its order.
struct RowOf<'a> {
    words: &'a [u32],
    last: usize,
}

impl<'a> RowOf<'a> {
    fn new(words: &'a [u32]) -> Self {
        Self { words, last: 0 }
    }

    fn get(&mut self, word: u32) -> Option<usize> {
        let is_at = |row: usize| self.words.get(row) == Some(&word);
        self.last = match [self.last, self.last + 1]
            .into_iter()
            .find(|&row| is_at(row))
        {
            Some(row) => row,
            None => self.words.binary_search(&word).ok()?,
        };
        Some(self.last)
    }
}

pub(super) fn invalid(error: lda::Damaged) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Tables of φ are asked for by the tasks of one step, shards in each step; of the room that a worker has for both, the tables take
/// up to a quarter.
static TOPICS: LazyLock<Cache<Vec<Topics>>> = LazyLock::new(|| Cache::new(Stay::Last));
static SHARDS: LazyLock<Cache<ShardData>> = LazyLock::new(|| Cache::new(Stay::First));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_come_as_they_were_sent() {
        let step = EStep {
            document_pseudo_count: 0.1,
            weight: 1.0,
            tokens: 1 << 31,
        };
        let unit = step.unit();
        // K, V, the words, φ.
        let table: Vec<u8> = [&[3, 4, 1, 5, 7, 9], &[0; 12][..]]
            .concat()
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let table = Topics::of_bytes(&table).unwrap();
        let sums = Sums {
            // No second digit, none at all, only a second one, both.
            cells: [
                [unit, 4095.5, 0.0],
                [0.0; 3],
                [0.0, 4096.0, 0.0],
                [2_000_000_000.25, unit, 4097.0],
            ]
            .concat(),
            likelihoods: vec![[-1.5e9, -0.1], [f64::MIN_POSITIVE, -7.0]],
        };
        let places = [(8, 1, 0, 0), (9, 0, 0, 0)];
        let batches = rows(&table, &sums, &places, step).unwrap();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 1 + 1 + 2 + 2);
        let mut summed = Summed::new(&table, 2, step);
        summed.begin();
        for batch in &batches {
            summed.add(batch.clone()).unwrap();
        }
        assert_eq!(summed.sums.cells, sums.cells);
        let likelihoods = [sums.likelihoods[1], sums.likelihoods[0]];
        assert_eq!(summed.sums.likelihoods, likelihoods);
        assert!(summed.add(batches[0].clone()).is_err(), "a shard twice");
        assert!(units(0.5).is_err() && units(-1.0).is_err() && units(f64::NAN).is_err());
    }
}
