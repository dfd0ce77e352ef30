//! `klieg plan`: what a run would read and write, and why; needs read rights only.

use std::io::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::exit;
use crate::cli::job_args::DayArgs;
use crate::cli::job_args::JobArgs;
use crate::job::Job;
use crate::job::StepKind;
use crate::step;
use crate::store::Manifest;
use crate::table::hive::Day;
use crate::table::hive::Layout;

/// Show what a run would read and write, and why
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg plan jobs/flow.yaml --date 2016-07-08 -D warehouse=/data/spot
  klieg plan jobs/flow.yaml --from 2016-07-01 --to 2016-07-08 --output json")]
pub(super) struct Args {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    days: DayArgs,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// A block of lines a day
    Table,
    /// Everything, with every input file
    Json,
}

#[derive(Serialize)]
struct Plan {
    day: String,
    action: &'static str,
    reason: String,
    input_files: Vec<String>,
    input_bytes: u64,
    splits: usize,
    writes: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let job = args.job.job()?;
    let days = args.days.days()?;
    let plans: Vec<Plan> = days.into_iter().map(|day| plan(&job, day)).collect();
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &plans)?;
        writeln!(out)?;
    } else {
        for plan in &plans {
            let Plan {
                day,
                action,
                reason,
                input_bytes,
                splits,
                ..
            } = plan;
            writeln!(out, "{day}  {action}: {reason}")?;
            writeln!(
                out,
                "  reads   {} files, {input_bytes} bytes, {splits} splits",
                plan.input_files.len()
            )?;
            for path in &plan.writes {
                writeln!(out, "  writes  {path}")?;
            }
        }
    }
    let none_can_run = plans.iter().all(|plan| plan.action == "fail");
    Ok(if none_can_run { exit::INPUT } else { 0 })
}

fn plan(job: &Job, day: Day) -> Plan {
    let layout = Layout::new(&job.config.warehouse, job.pipeline.name());
    let target = layout.day(day);
    let mut plan = Plan {
        day: day.to_string(),
        action: "fail",
        reason: String::new(),
        input_files: Vec::new(),
        input_bytes: 0,
        splits: 0,
        writes: writes(job, &layout, day),
    };
    let is_current = step::suspicious::is_current(&job.config, &layout, day);
    let analyses = job.steps.contains(&StepKind::Suspicious) && !matches!(is_current, Ok(true));
    let published = Manifest::read(&target);
    if !job.steps.contains(&StepKind::Ingest) {
        (plan.action, plan.reason) = match is_current {
            Err(error) => ("fail", error.to_string()),
            Ok(true) => ("skip", "the results are up to date".to_owned()),
            Ok(false) => (
                "run",
                "no results of this table, these settings and this version".to_owned(),
            ),
        };
        return plan;
    }
    let inputs = match step::ingest::inputs(&job.config, &layout, day) {
        Ok(inputs) => inputs,
        Err(error) => {
            plan.reason = error.to_string();
            return plan;
        }
    };
    plan.input_bytes = inputs.bytes();
    plan.splits = step::ingest::splits(&inputs.files, job.config.ingest.split_bytes).len();
    let gone = published.as_ref().and_then(step::ingest::vanished);
    (plan.action, plan.reason) = action(published, gone, &inputs.fingerprint, analyses);
    plan.input_files = inputs.files.into_iter().map(|file| file.path).collect();
    plan
}

/// What the step ingest would do, and why; `analyses` where the results are not up to date.
fn action(
    published: Option<Manifest>,
    gone: Option<String>,
    fingerprint: &str,
    analyses: bool,
) -> (&'static str, String) {
    match (published, gone) {
        (None, _) => ("run", "nothing is published".to_owned()),
        (Some(_), Some(gone)) => (
            "keep",
            format!("{gone} was read for the published day and is gone; --redo replaces it"),
        ),
        (Some(manifest), None) if manifest.fingerprint != fingerprint => (
            "replace",
            format!(
                "raw files, settings or version changed; {} rows are published",
                manifest.rows
            ),
        ),
        (Some(manifest), None) if analyses => (
            "run",
            format!(
                "the table is up to date ({} rows), its results are not",
                manifest.rows
            ),
        ),
        (Some(manifest), None) => ("skip", format!("up to date, {} rows", manifest.rows)),
    }
}

/// Folders that would be replaced.
fn writes(job: &Job, layout: &Layout, day: Day) -> Vec<String> {
    let mut writes = Vec::new();
    for step in &job.steps {
        match step {
            StepKind::Ingest => writes.push(layout.day(day)),
            StepKind::Suspicious => writes.extend([
                layout.scores(day),
                layout.result("suspicious", day),
                layout.result("groups", day),
                layout.model(day),
            ]),
        }
    }
    writes
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}
