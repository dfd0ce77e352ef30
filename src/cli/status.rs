//! `klieg status`: what is published, what failed, who is at work.

use std::io::Write as _;

use crate::cli::exit;
use crate::cli::job_args::Output;
use crate::cli::job_args::SiteArgs;
use crate::engine::cluster::Driver;
use crate::job::Overview;
use crate::job::PipelineOverview;
use crate::store::Store;

/// Show what is published, what failed last, and which runs are at work
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg status -D warehouse=/data/spot
  klieg status --output json -D warehouse=/data/spot

Exit code 0 where no day failed last, 1 where one did: klieg run --reprocess failed does those again.")]
pub(super) struct Args {
    /// Form of the output; json names every day
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let config = args.site.layers()?.check()?;
    let overview = Overview::of(&Store::open(&config)?)?;
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &overview)?;
        writeln!(out)?;
    } else {
        for pipeline in &overview.pipelines {
            print(&mut out, pipeline)?;
        }
        for driver in &overview.drivers {
            print_driver(&mut out, driver)?;
        }
        for (partition, owner) in &overview.live {
            writeln!(out, "at work    {partition}: {owner}")?;
        }
        for partition in &overview.half_published {
            writeln!(
                out,
                "half done  {partition}: the next run or klieg recover finishes it"
            )?;
        }
    }
    let is_bad = |pipeline: &PipelineOverview| !pipeline.failed.is_empty();
    Ok(if overview.pipelines.iter().any(is_bad) {
        exit::FAILED
    } else {
        0
    })
}

/// A driver that uses a pool, its workers, and the stage that runs.
fn print_driver(out: &mut impl std::io::Write, driver: &Driver) -> std::io::Result<()> {
    let Driver {
        pool,
        run,
        process,
        version,
        workers,
        stages,
    } = driver;
    let (pool, run, version) = (plain(pool), plain(run), plain(version));
    writeln!(
        out,
        "pool       {pool}: run {run}, process {process}, klieg {version}, {} workers",
        workers.len()
    )?;
    let text = |value: &serde_json::Value| plain(value.as_str().unwrap_or_default());
    for worker in workers {
        let barred = match text(&worker["barred"]) {
            barred if barred.is_empty() => String::new(),
            barred => format!(", no tasks: {barred}"),
        };
        writeln!(
            out,
            "  worker   {}: {} slots, {}, seen {:.1} s before{barred}",
            text(&worker["address"]),
            worker["slots"],
            text(&worker["about"]),
            worker["silent_s"].as_f64().unwrap_or(0.0),
        )?;
    }
    for stage in stages.iter().filter(|stage| stage["running"] != 0) {
        writeln!(
            out,
            "  stage    {} ({}): {} of {} tasks done, {} running",
            stage["stage"],
            text(&stage["work"]),
            stage["done"],
            stage["tasks"],
            stage["running"],
        )?;
    }
    Ok(())
}

/// A text that others may have written, fit for a terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|symbol| if symbol.is_control() { '?' } else { symbol })
        .collect()
}

fn print(out: &mut impl std::io::Write, overview: &PipelineOverview) -> std::io::Result<()> {
    let PipelineOverview {
        pipeline,
        published,
        foreign,
        failed,
    } = overview;
    let rows: u64 = published.iter().map(|(_, rows)| rows).sum();
    write!(
        out,
        "{pipeline:<9}  {} days published, {rows} rows",
        published.len()
    )?;
    if let (Some((first, _)), Some((last, _))) = (published.first(), published.last()) {
        write!(out, ", {first} to {last}")?;
    }
    writeln!(out)?;
    if let Some(first) = foreign.first() {
        let count = foreign.len();
        writeln!(
            out,
            "foreign    {count} days of another tool or damaged, the first: {first}"
        )?;
    }
    for (day, run, error) in failed {
        writeln!(out, "failed     {day}, run {run}: {error}")?;
    }
    Ok(())
}
