//! Reads and prints the table `flow_groups`.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use arrow::array::Array as _;
use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::compute::concat_batches;
use arrow::compute::sort_to_indices;
use arrow::compute::take_record_batch;
use arrow::util::display::ArrayFormatter;
use arrow::util::display::FormatOptions;
use bytes::Bytes;
use clap::ValueEnum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::cli::exit;
use crate::job::Pipeline;
use crate::store::Manifest;
use crate::store::Places;
use crate::store::Store;
use crate::table;
use crate::table::hive::Day;
use crate::table::hive::Layout;
use crate::table::suspicious::GROUP_COLUMNS;

/// An order of the groups.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum By {
    /// Half A and half B in turn
    List,
    /// Loud and new
    A,
    /// Quiet and odd
    B,
    /// Lowest p, Spot's score
    P,
}

impl By {
    /// All with their names.
    pub(super) const ALL: [(Self, &str); 4] = [
        (Self::List, "list (A and B in turn)"),
        (Self::A, "half A, loud and new"),
        (Self::B, "half B, quiet and odd"),
        (Self::P, "p, Spot's score"),
    ];

    pub(super) fn column(self) -> &'static str {
        match self {
            Self::List => "rank",
            Self::A => "rank_a",
            Self::B => "rank_b",
            Self::P => "rank_p",
        }
    }
}

/// Reads the groups of a day.
pub(super) fn read(store: &Store, day: Day) -> anyhow::Result<RecordBatch> {
    let layout = Layout::new(store.root(), Pipeline::Flow.name());
    store.check_folder(&layout.pipeline_dir())?;
    let places = Places::read(store, &layout.key(day))?;
    let folder = places.of(&layout.result("groups", day));
    let Some(manifest) = Manifest::read(store, &folder)? else {
        let text = format!(
            "{}: no list of {day}; run `klieg run` on that day first",
            store.url(&folder)
        );
        return Err(exit::NoResult(text).into());
    };
    let mut batches = Vec::new();
    for (name, _) in &manifest.files {
        batches.extend(read_file(store, &folder.join(name))?);
    }
    let schema = table::parquet::schema(&GROUP_COLUMNS);
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok(concat_batches(&schema, &batches)?)
}

fn read_file(store: &Store, path: &Path) -> anyhow::Result<Vec<RecordBatch>> {
    let name = || store.url(path);
    if path
        .extension()
        .is_none_or(|extension| extension != "parquet")
    {
        return Ok(Vec::new());
    }
    let bytes = store.read(path).with_context(name)?.unwrap_or_default();
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
        .with_context(name)?
        .build()
        .with_context(name)?;
    reader.collect::<Result<_, _>>().with_context(name)
}

/// The first `limit` rows that have a rank of this order, by it.
pub(super) fn ranked(all: &RecordBatch, by: By, limit: usize) -> anyhow::Result<RecordBatch> {
    let ranks = all
        .column_by_name(by.column())
        .context("the table has no ranks")?;
    let options = SortOptions {
        descending: false,
        nulls_first: false,
    };
    let known = ranks.len() - ranks.null_count();
    let order = sort_to_indices(ranks, Some(options), Some(limit.min(known)))?;
    Ok(take_record_batch(all, &order)?)
}

pub(super) fn cell(rows: &RecordBatch, column: &str, row: usize) -> anyhow::Result<String> {
    let array = rows
        .column_by_name(column)
        .with_context(|| format!("the table has no column `{column}`"))?;
    Ok(ArrayFormatter::try_new(array, &FormatOptions::default())?
        .value(row)
        .try_to_string()?)
}

pub(super) fn print_table(rows: &RecordBatch, by: By) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>6}  {:<4}  {:<39}  {:>9}  {:<19}  reason",
        "rank", "half", "ip", "flows", "first"
    )?;
    for row in 0..rows.num_rows() {
        let [rank, half, ip, flows, first, reason] =
            [by.column(), "half", "ip", "flows", "first", "reason"]
                .map(|column| cell(rows, column, row));
        writeln!(
            out,
            "{:>6}  {:<4}  {:<39}  {:>9}  {:<19}  {}",
            rank?, half?, ip?, flows?, first?, reason?
        )?;
    }
    Ok(())
}
