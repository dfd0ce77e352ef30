//! Files of results.

use std::fs::File;
use std::io::BufWriter;
use std::io::Write as _;
use std::path::Path;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;

use crate::engine::probe::Found;
use crate::step::StepError;
use crate::table;
use crate::table::suspicious::result_line;

/// The only file of a result table.
const TABLE_FILE: &str = "part-00000.snappy.parquet";

/// Writes Spot's text results.
pub(super) fn write_results(path: &Path, found: &Found) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for (score, row) in &found.flows {
        writeln!(out, "{}", result_line(row, *score))?;
    }
    out.into_inner()?.sync_all()
}

/// Writes a result table of one batch.
pub(super) fn write_table(
    folder: &Path,
    batch: Result<RecordBatch, arrow::error::ArrowError>,
) -> Result<(), StepError> {
    let path = folder.join(TABLE_FILE);
    let write = || -> Result<(), parquet::errors::ParquetError> {
        let batch = batch?;
        let file = File::create(&path)?;
        let mut writer =
            ArrowWriter::try_new_with_options(file, batch.schema(), table::parquet::options())?;
        writer.write(&batch)?;
        writer.finish()?;
        writer.inner().sync_all()?;
        Ok(())
    };
    write().map_err(|error| StepError::Parquet {
        path: path.display().to_string(),
        error,
    })
}

/// Files of a staged folder with their lengths, by name.
pub(super) fn staged_files(folder: &Path) -> Result<Vec<(String, u64)>, StepError> {
    let fail = |error| StepError::Io {
        path: folder.display().to_string(),
        error,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let bytes = entry.metadata().map_err(fail)?.len();
        files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
    }
    files.sort();
    Ok(files)
}
