//! `klieg history` and `klieg show`: what runs did.

use std::io::Write as _;

use serde_json::Value;
use serde_json::json;

use crate::cli::exit;
use crate::cli::job_args::Output;
use crate::cli::job_args::SiteArgs;
use crate::cli::render;
use crate::job::History;
use crate::job::Partition;
use crate::job::Record;
use crate::store::Store;
use crate::table::period::Period;

/// List what runs did, the newest first
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg history -D warehouse=/data/spot
  klieg history --date 2016-07-08 --output json -D warehouse=/data/spot
  klieg history --partition flow/2016-07-08 -D warehouse=/data/spot

A line is a day that a run published or failed on. Runs that found a day up to date leave none.")]
pub(super) struct HistoryArgs {
    /// Only runs of this day and its hours, or of this hour
    #[arg(long, value_name = "DAY")]
    date: Option<String>,
    /// Only runs of this partition, such as flow/2016-07-08
    #[arg(long, value_name = "PARTITION", conflicts_with = "date")]
    partition: Option<Partition>,
    /// At most so many lines
    #[arg(short = 'n', default_value_t = 50, value_name = "N")]
    rows: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

/// Show what one run did: inputs, counts, rejects, times
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg show 20160709T010203Z-1a2b3c4d -D warehouse=/data/spot
  klieg show 20160709T010203Z-1a2b3c4d --output json -D warehouse=/data/spot")]
pub(super) struct ShowArgs {
    /// Name of the run, as history and the summary of run give it
    run: String,
    /// Form of the output; json has everything
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn history(args: &HistoryArgs) -> anyhow::Result<u8> {
    let date = args.date.as_deref().map(str::parse::<Period>).transpose()?;
    let period = args.partition.map(|partition| partition.period).or(date);
    let date = period.map(|period| period.to_string());
    let pipeline = args.partition.map(|partition| partition.pipeline.name());
    let config = args.site.layers()?.check()?;
    let store = Store::open(&config)?;
    store.check_folder(store.root())?;
    let mut history = History::read(&store)?;
    tell_unreadable(&history);
    let is_wanted = |record: &Record| {
        let is_then = date
            .as_ref()
            .is_none_or(|date| record.day.starts_with(date));
        is_then && pipeline.is_none_or(|pipeline| record.pipeline == pipeline)
    };
    history.records.retain(is_wanted);
    history.records.truncate(args.rows);
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &history.records)?;
        writeln!(out)?;
        return Ok(0);
    }
    writeln!(
        out,
        "{:<26}  {:<8}  {:<10}  {:<9}  {:>12}  {:>8}",
        "run", "pipeline", "day", "status", "rows", "seconds"
    )?;
    for record in &history.records {
        writeln!(
            out,
            "{:<26}  {:<8}  {:<10}  {:<9}  {:>12}  {:>8.1}",
            record.run,
            record.pipeline,
            record.day,
            record.status.name(),
            record.rows(),
            record.seconds
        )?;
    }
    Ok(0)
}

fn tell_unreadable(history: &History) {
    if let Some(first) = history.unreadable.first() {
        render::fail(&format!(
            "{} files of the history are no run reports of this version, left out; the first: {}",
            history.unreadable.len(),
            first.display()
        ));
    }
}

pub(super) fn show(args: &ShowArgs) -> anyhow::Result<u8> {
    let config = args.site.layers()?.check()?;
    let store = Store::open(&config)?;
    store.check_folder(store.root())?;
    let history = History::read_run(&store, &args.run)?;
    tell_unreadable(&history);
    if history.records.is_empty() {
        let text = format!(
            "no report of a run `{}` in {}; klieg history lists them",
            args.run,
            store.url(&store.work_area().join("history"))
        );
        return Err(exit::NoResult(text).into());
    }
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &history.records)?;
        writeln!(out)?;
        return Ok(0);
    }
    for record in &history.records {
        print(&mut out, record)?;
    }
    Ok(0)
}

fn print(out: &mut impl std::io::Write, record: &Record) -> std::io::Result<()> {
    let Record {
        job, pipeline, day, ..
    } = record;
    let status = record.status.name();
    writeln!(
        out,
        "{pipeline} {day}  {status}, job {job}, klieg {}",
        record.version
    )?;
    let memory = record
        .peak_memory_bytes
        .map(|bytes| format!(", {} MiB", bytes >> 20));
    let (started, seconds) = (&record.started, record.seconds);
    writeln!(
        out,
        "  started   {started}, {seconds:.1} s{}",
        memory.unwrap_or_default()
    )?;
    if let Some(error) = record.error() {
        writeln!(out, "  error     {error}")?;
    }
    for step in record.outcome["steps"].as_array().into_iter().flatten() {
        print_step(out, step)?;
    }
    Ok(())
}

fn print_step(out: &mut impl std::io::Write, step: &Value) -> std::io::Result<()> {
    let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
    let did = match step["published"].as_bool() {
        Some(true) => "published",
        _ => "was up to date",
    };
    let rows = &step["rows"];
    writeln!(out, "  step      {} {did}, {rows} rows", text("step"))?;
    for path in step["outputs"].as_array().into_iter().flatten() {
        writeln!(out, "    output    {}", path.as_str().unwrap_or_default())?;
    }
    let report = &step["report"];
    if let Some(inputs) = report["inputs"].as_array() {
        let bytes = inputs.iter().filter_map(|input| input["bytes"].as_u64());
        let bytes: u64 = bytes.sum();
        writeln!(out, "    inputs    {} files, {bytes} bytes", inputs.len())?;
    }
    let Value::Object(counts) = &report["counts"] else {
        return Ok(());
    };
    for (name, count) in counts {
        if *count != json!({}) {
            writeln!(out, "    {name:<9} {count}")?;
        }
    }
    Ok(())
}
