//! `klieg check`: says whether a job can run, and with which settings.

use std::io::Write as _;

use crate::cli::job_args::JobArgs;

/// Check a job file and its configuration; touches no data
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg check jobs/flow.yaml
  klieg check jobs/flow.yaml --config site.yaml -D suspicious.topics=30

Prints the steps and every key with its value. Exit code 2 where a key, value or step cannot
be used, with line and column.")]
pub(super) struct Args {
    #[command(flatten)]
    job: JobArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let job = args.job.job()?;
    let mut out = std::io::stdout().lock();
    let steps: Vec<_> = job.steps.iter().map(|step| step.name()).collect();
    writeln!(
        out,
        "job {}, pipeline {}, steps {}",
        job.name,
        job.pipeline.name(),
        steps.join(", ")
    )?;
    for (key, value) in &job.config.texts {
        writeln!(out, "  {key:<28} {value}")?;
    }
    Ok(0)
}
