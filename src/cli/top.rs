//! `klieg top`: the ranked list of a day.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use arrow::array::Array as _;
use arrow::array::AsArray as _;
use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::compute::concat_batches;
use arrow::compute::sort_to_indices;
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use arrow::datatypes::Int32Type;
use arrow::util::display::ArrayFormatter;
use arrow::util::display::FormatOptions;
use clap::ValueEnum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Map;
use serde_json::Value;

use crate::cli::exit;
use crate::cli::job_args::SiteArgs;
use crate::job::Pipeline;
use crate::store::Manifest;
use crate::table::hive::Day;
use crate::table::hive::Layout;

/// Show the ranked list of a day
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg top flow --date 2016-07-08 -D warehouse=/data/spot
  klieg top flow --date 2016-07-08 -n 100 --by a --output csv

A row is a group: one IP and one kind of connection (word), with how many flows it had and why it is listed. `list` takes the
loud and new (half A) and the quiet and odd (half B) in turn; `p` is the order of Apache Spot's score.")]
pub(super) struct Args {
    /// Which pipeline
    #[arg(value_enum)]
    pipeline: PipelineArg,
    /// Day in UTC
    #[arg(long, value_name = "DAY")]
    date: String,
    /// Rows
    #[arg(short = 'n', default_value_t = 20, value_name = "N")]
    rows: usize,
    /// Order
    #[arg(long, value_enum, default_value = "list")]
    by: By,
    /// Form of the output; csv and json have every column
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PipelineArg {
    /// Flow records
    Flow,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum By {
    /// Half A and half B in turn
    List,
    /// Loud and new
    A,
    /// Quiet and odd
    B,
    /// Lowest p, Spot's score
    P,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// What an analyst reads first
    Table,
    /// Every column, RFC 4180
    Csv,
    /// Every column, one array
    Json,
}

impl By {
    fn column(self) -> &'static str {
        match self {
            Self::List => "rank",
            Self::A => "rank_a",
            Self::B => "rank_b",
            Self::P => "rank_p",
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let day: Day = args.date.parse()?;
    let config = args.site.layers()?.check()?;
    let layout = Layout::new(&config.warehouse, Pipeline::Flow.name());
    let folder = layout.result("groups", day);
    let Some(manifest) = Manifest::read(&folder) else {
        let text = format!(
            "{}: no list of {day}; run `klieg run` on that day first",
            folder.display()
        );
        return Err(exit::NoResult(text).into());
    };
    let mut batches = Vec::new();
    for (name, _) in &manifest.files {
        batches.extend(read(&folder.join(name))?);
    }
    let Some(first) = batches.first() else {
        return Ok(0);
    };
    let all = concat_batches(&first.schema(), &batches)?;
    let rows = ranked(&all, args.by, args.rows)?;
    match args.output {
        Output::Table => print_table(&rows, args.by),
        Output::Csv => print_csv(&rows),
        Output::Json => print_json(&rows),
    }?;
    Ok(0)
}

fn read(path: &Path) -> anyhow::Result<Vec<RecordBatch>> {
    let name = || path.display().to_string();
    if path
        .extension()
        .is_none_or(|extension| extension != "parquet")
    {
        return Ok(Vec::new());
    }
    let file = File::open(path).with_context(name)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .with_context(name)?
        .build()
        .with_context(name)?;
    reader.collect::<Result<_, _>>().with_context(name)
}

/// The first `limit` rows that have a rank of this order, by it.
fn ranked(all: &RecordBatch, by: By, limit: usize) -> anyhow::Result<RecordBatch> {
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

fn cell(rows: &RecordBatch, column: &str, row: usize) -> anyhow::Result<String> {
    let array = rows
        .column_by_name(column)
        .with_context(|| format!("the table has no column `{column}`"))?;
    Ok(ArrayFormatter::try_new(array, &FormatOptions::default())?
        .value(row)
        .try_to_string()?)
}

fn print_table(rows: &RecordBatch, by: By) -> anyhow::Result<()> {
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

fn print_csv(rows: &RecordBatch) -> anyhow::Result<()> {
    let mut out = csv::Writer::from_writer(std::io::stdout().lock());
    let schema = rows.schema();
    let names: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    out.write_record(&names)?;
    for row in 0..rows.num_rows() {
        let cells: Result<Vec<_>, _> = names.iter().map(|name| cell(rows, name, row)).collect();
        out.write_record(cells?)?;
    }
    out.flush()?;
    Ok(())
}

fn print_json(rows: &RecordBatch) -> anyhow::Result<()> {
    let schema = rows.schema();
    let mut values = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let mut object = Map::new();
        for field in schema.fields() {
            let array = rows
                .column_by_name(field.name())
                .context("a column is missing")?;
            let value = match field.data_type() {
                _ if array.is_null(row) => Value::Null,
                DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
                DataType::Utf8 => cell(rows, field.name(), row)?.into(),
                // Numbers print as JSON numbers.
                _ => serde_json::from_str(&cell(rows, field.name(), row)?).unwrap_or(Value::Null),
            };
            object.insert(field.name().clone(), value);
        }
        values.push(Value::Object(object));
    }
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &values)?;
    writeln!(out)?;
    Ok(())
}
