//! `klieg top`: the ranked list of a day.

use std::io::Write as _;

use anyhow::Context as _;
use arrow::array::Array as _;
use arrow::array::AsArray as _;
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::datatypes::Int32Type;
use clap::ValueEnum;
use serde_json::Map;
use serde_json::Value;

use crate::cli::groups;
use crate::cli::groups::By;
use crate::cli::job_args::SiteArgs;
use crate::cli::render;
use crate::store::Store;
use crate::table::hive::Day;

/// Show the ranked list of a day
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg top flow --date 2016-07-08 -D warehouse=/data/spot
  klieg top flow --date 2016-07-08 -n 100 --by a --output csv

A row is a group: one IP and one kind of connection (word), with how many flows it had
and why it is listed. `list` takes the loud and new (half A) and the quiet and odd (half B)
in turn; `p` is the order of Apache Spot's score.")]
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
enum Output {
    /// What an analyst reads first
    Table,
    /// Every column, RFC 4180
    Csv,
    /// Every column, one array
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let day: Day = args.date.parse()?;
    let config = args.site.layers()?.check()?;
    let all = groups::read(&Store::open(&config)?, day)?;
    let rows = groups::ranked(&all, args.by, args.rows)?;
    if rows.num_rows() < args.rows {
        render::say(&format!(
            "top: {day} has {} groups in this order, no more were kept (suspicious.groups = {})",
            rows.num_rows(),
            config.suspicious.groups
        ));
    }
    match args.output {
        Output::Table => groups::print_table(&rows, args.by),
        Output::Csv => print_csv(&rows),
        Output::Json => print_json(&rows),
    }?;
    Ok(0)
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
        let cells: Result<Vec<_>, _> = names
            .iter()
            .map(|name| groups::cell(rows, name, row))
            .collect();
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
                DataType::Utf8 => groups::cell(rows, field.name(), row)?.into(),
                // Numbers print as JSON numbers.
                _ => serde_json::from_str(&groups::cell(rows, field.name(), row)?)
                    .unwrap_or(Value::Null),
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
