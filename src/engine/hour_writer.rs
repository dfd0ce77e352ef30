//! Writes the rows of a split as one Parquet file an hour; columns are encoded on several threads.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::ArrowColumnChunk;
use parquet::arrow::arrow_writer::ArrowColumnWriter;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::arrow::arrow_writer::compute_leaves;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;

use crate::engine::ingest::IngestError;
use crate::engine::ingest::IngestSpec;
use crate::engine::ingest::Part;
use crate::parallel;
use crate::table;
use crate::table::flow;
use crate::table::hive;

/// Encoded bytes of all hours that wait for the end of their row groups. Whoever has few hours under way never meets it; the limit is
/// one of the data alone, so that memory does not change the files.
const ENCODED_BYTES: usize = 64 << 20;

/// The writers of a split.
pub(super) struct HourWriters {
    staging: PathBuf,
    name: String,
    has_folders: bool,
    threads: NonZeroUsize,
    hours: BTreeMap<u8, HourWriter>,
    pending_rows: usize,
    pending_bytes: usize,
    encoded_bytes: usize,
}

struct HourWriter {
    path: PathBuf,
    file: SerializedFileWriter<File>,
    factory: ArrowRowGroupWriterFactory,
    columns: Vec<ArrowColumnWriter>,
    group_index: usize,
    group_rows: usize,
    rows: u64,
    pending: Vec<RecordBatch>,
}

impl HourWriters {
    pub(super) fn new(spec: &IngestSpec, split: u32) -> Self {
        Self {
            staging: PathBuf::from(&spec.staging),
            name: format!("part-{split:05}-{}.snappy.parquet", spec.tag),
            has_folders: spec.has_hour_folders,
            threads: spec.threads,
            hours: BTreeMap::new(),
            pending_rows: 0,
            pending_bytes: 0,
            encoded_bytes: 0,
        }
    }

    pub(super) fn pending_rows(&self) -> usize {
        self.pending_rows
    }

    /// Bytes of rows that wait, and of row groups under way as of the last flush.
    pub(super) fn held_bytes(&self) -> usize {
        self.pending_bytes + self.encoded_bytes
    }

    /// Takes rows; the hour's file is made by the next flush.
    pub(super) fn push(&mut self, hour: u8, batch: RecordBatch) -> Result<(), IngestError> {
        self.pending_rows += batch.num_rows();
        self.pending_bytes += batch.get_array_memory_size();
        if !self.hours.contains_key(&hour) {
            let path = self
                .staging
                .join(path_of(self.has_folders, hour, &self.name));
            let writer = HourWriter::create(&path).map_err(|error| write_error(&path, error))?;
            self.hours.insert(hour, writer);
        }
        if let Some(writer) = self.hours.get_mut(&hour) {
            writer.pending.push(batch);
        }
        Ok(())
    }

    /// Encodes what waits; row groups that are full go to their files, and the largest where all together are too large.
    pub(super) fn flush(&mut self) -> Result<(), IngestError> {
        (self.pending_rows, self.pending_bytes) = (0, 0);
        for writer in self.hours.values_mut() {
            let path = writer.path.clone();
            writer
                .flush(self.threads)
                .map_err(|error| write_error(&path, error))?;
        }
        let threads = self.threads;
        while let Some(writer) = self.largest_of_too_much() {
            let path = writer.path.clone();
            writer
                .begin_group(threads)
                .map_err(|error| write_error(&path, error))?;
        }
        let sizes = self.hours.values().map(HourWriter::encoded_bytes);
        self.encoded_bytes = sizes.sum();
        Ok(())
    }

    /// Returns the hour with most encoded bytes, the first of equal ones, where all hours have more than may be held.
    fn largest_of_too_much(&mut self) -> Option<&mut HourWriter> {
        let sizes = self.hours.values().map(HourWriter::encoded_bytes);
        let sizes: Vec<usize> = sizes.collect();
        if sizes.iter().sum::<usize>() <= ENCODED_BYTES {
            return None;
        }
        let largest = sizes.iter().max().copied();
        let writers = self.hours.values_mut().zip(sizes);
        let mut writers = writers.filter(|(_, size)| Some(*size) == largest);
        writers.next().map(|(writer, _)| writer)
    }

    /// Writes what is left and closes the files.
    pub(super) fn finish(mut self) -> Result<Vec<Part>, IngestError> {
        self.flush()?;
        let mut parts = Vec::with_capacity(self.hours.len());
        for (hour, writer) in self.hours {
            let path = writer.path.clone();
            let rows = writer.rows;
            writer
                .finish(self.threads)
                .map_err(|error| write_error(&path, error))?;
            let bytes = std::fs::metadata(&path)
                .map_err(|error| write_error(&path, error.into()))?
                .len();
            let path = path_of(self.has_folders, hour, &self.name);
            parts.push(Part { path, rows, bytes });
        }
        Ok(parts)
    }
}

/// Below the staging folder.
fn path_of(has_folders: bool, hour: u8, name: &str) -> String {
    match has_folders {
        true => format!("{}/{name}", hive::hour_dir(hour)),
        false => name.to_owned(),
    }
}

fn write_error(path: &Path, error: ParquetError) -> IngestError {
    IngestError::Write {
        path: path.display().to_string(),
        error,
    }
}

impl HourWriter {
    fn create(path: &Path) -> Result<Self, ParquetError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let schema = flow::schema();
        let descriptor = ArrowSchemaConverter::new()
            .schema_root("hive_schema")
            .convert(&schema)?;
        let properties = Arc::new(table::parquet::properties());
        let file = SerializedFileWriter::new(
            File::create(path)?,
            descriptor.root_schema_ptr(),
            properties,
        )?;
        let factory = ArrowRowGroupWriterFactory::new(&file, schema);
        Ok(Self {
            path: path.to_path_buf(),
            columns: factory.create_column_writers(0)?,
            file,
            factory,
            group_index: 0,
            group_rows: 0,
            rows: 0,
            pending: Vec::new(),
        })
    }

    fn flush(&mut self, threads: NonZeroUsize) -> Result<(), ParquetError> {
        let batches = std::mem::take(&mut self.pending);
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows == 0 {
            return Ok(());
        }
        let columns: Vec<_> = std::mem::take(&mut self.columns)
            .into_iter()
            .enumerate()
            .collect();
        let columns: Vec<_> = columns
            .into_iter()
            .map(|(index, writer)| (index, Mutex::new(Some(writer))))
            .collect();
        let encoded = parallel::map(threads, &columns, |(index, slot)| {
            encode(*index, slot, &batches)
        });
        self.columns = encoded.into_iter().collect::<Result<_, _>>()?;
        self.rows += rows as u64;
        self.group_rows += rows;
        if self.group_rows >= table::parquet::ROW_GROUP_ROWS {
            self.begin_group(threads)?;
        }
        Ok(())
    }

    /// Bytes of the row group under way; 0 before its first row, so that ending it always helps.
    fn encoded_bytes(&self) -> usize {
        let columns = self.columns.iter().filter(|_| self.group_rows > 0);
        columns.map(ArrowColumnWriter::memory_size).sum()
    }

    /// Writes the row group under way and begins the next.
    fn begin_group(&mut self, threads: NonZeroUsize) -> Result<(), ParquetError> {
        self.end_group(threads)?;
        self.columns = self.factory.create_column_writers(self.group_index)?;
        Ok(())
    }

    fn end_group(&mut self, threads: NonZeroUsize) -> Result<(), ParquetError> {
        let columns: Vec<_> = std::mem::take(&mut self.columns)
            .into_iter()
            .map(|writer| Mutex::new(Some(writer)))
            .collect();
        let chunks = parallel::map(threads, &columns, close);
        let mut group = self.file.next_row_group()?;
        for chunk in chunks {
            chunk?.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.group_index += 1;
        self.group_rows = 0;
        Ok(())
    }

    fn finish(mut self, threads: NonZeroUsize) -> Result<(), ParquetError> {
        if self.group_rows > 0 {
            self.end_group(threads)?;
        }
        self.file.finish()?;
        self.file.inner().sync_all()?;
        Ok(())
    }
}

type Slot = Mutex<Option<ArrowColumnWriter>>;

fn take(slot: &Slot) -> Result<ArrowColumnWriter, ParquetError> {
    let writer = slot.lock().ok().and_then(|mut slot| slot.take());
    writer.ok_or_else(|| ParquetError::General("a column writer was lost".to_owned()))
}

fn encode(
    index: usize,
    slot: &Slot,
    batches: &[RecordBatch],
) -> Result<ArrowColumnWriter, ParquetError> {
    let mut writer = take(slot)?;
    for batch in batches {
        for leaf in compute_leaves(batch.schema_ref().field(index), batch.column(index))? {
            writer.write(&leaf)?;
        }
    }
    Ok(writer)
}

fn close(slot: &Slot) -> Result<ArrowColumnChunk, ParquetError> {
    take(slot)?.close()
}
