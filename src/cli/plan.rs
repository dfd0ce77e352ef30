//! `klieg plan`: what a run would read and write, and why; needs read rights only.

use std::io::Write as _;

use crate::cli::exit;
use crate::cli::job_args::DayArgs;
use crate::cli::job_args::JobArgs;
use crate::cli::job_args::Output;
use crate::cli::job_args::ReprocessArg;
use crate::cli::run;
use crate::job;
use crate::job::Action;
use crate::job::DayPlan;
use crate::store::Store;

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
    /// Which days the run would be told to do
    #[arg(long, value_enum, default_value = "changed", value_name = "WHICH")]
    reprocess: ReprocessArg,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let job = args.job.job()?;
    let days = args.days.periods(&job)?;
    let plans = job::plan_days(
        &job,
        &Store::open(&job.config)?,
        &days,
        (args.reprocess.into(), run::now()),
    )?;
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &plans)?;
        writeln!(out)?;
    } else {
        for plan in &plans {
            print(&mut out, plan)?;
        }
    }
    let none_can_run = plans.iter().all(|plan| plan.action == Action::Fail);
    Ok(if none_can_run { exit::INPUT } else { 0 })
}

fn print(out: &mut impl std::io::Write, plan: &DayPlan) -> std::io::Result<()> {
    writeln!(out, "{}  {}: {}", plan.day, plan.action.name(), plan.reason)?;
    if let Some(owner) = &plan.locked_by {
        writeln!(
            out,
            "  locked  by {owner}; a run ends with exit code 4 until it is done"
        )?;
    }
    if plan.splits > 0 {
        writeln!(
            out,
            "  reads   files: {}, bytes: {}, splits: {}",
            plan.input_files.len(),
            plan.input_bytes,
            plan.splits
        )?;
    }
    for path in &plan.writes {
        writeln!(out, "  writes  {path}")?;
    }
    if let Some(seconds) = plan.expected_seconds {
        write!(out, "  expects {seconds:.0} s")?;
        if let Some(bytes) = plan.expected_memory_bytes {
            write!(out, ", {} MiB", bytes >> 20)?;
        }
        writeln!(out, " by the last run that published")?;
    }
    if let Some((status, started)) = &plan.last_run {
        writeln!(out, "  last    {} {started}", status.name())?;
    }
    Ok(())
}
