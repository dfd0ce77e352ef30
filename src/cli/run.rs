//! `klieg run`: runs the steps of a job on days.

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::exit;
use crate::cli::job_args::DayArgs;
use crate::cli::job_args::JobArgs;
use crate::cli::render;
use crate::cli::render::Renderer;
use crate::job;
use crate::job::DayError;
use crate::job::DayOutcome;
use crate::job::Job;
use crate::job::RunOptions;
use crate::step::Events as _;
use crate::store;
use crate::table::hive::Day;

/// Run a job on one day or a range of days
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg run jobs/flow.yaml --date 2016-07-08 -D warehouse=/data/spot
  klieg run jobs/flow.yaml --from 2016-07-01 --to 2016-07-08 --steps ingest
  klieg run jobs/flow.yaml --date 20160708 --redo --output json

A day that is up to date (same raw files, settings and version) is skipped. What is published is replaced in one step, so
readers see the old result or the new one; a step that fails or is stopped changes nothing.")]
pub(super) struct Args {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    days: DayArgs,
    /// Do days that are up to date too
    #[arg(long)]
    redo: bool,
    /// Form of the summary on stdout
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// A line a day and step
    Table,
    /// key=value lines for schedulers
    Props,
    /// Everything
    Json,
}

/// What happened to each day.
pub(super) struct Results {
    run_id: String,
    days: Vec<(Day, Result<DayOutcome, DayError>)>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let days = args.days.days()?;
    let job = args.job.job()?;
    let results = execute(&job, &days, args.redo)?;
    results.print(args.output, &job)?;
    Ok(results.exit_code())
}

/// Runs a job on days in order and tells people on stderr.
pub(super) fn execute(job: &Job, days: &[Day], redo: bool) -> anyhow::Result<Results> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One more, so that signals are heard while all others compute.
        .worker_threads(job.config.threads.get() + 1)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let options = RunOptions {
        run_id: run_id(),
        redo,
        now,
    };
    let events = Renderer::new();
    let work_area = job.config.warehouse.join(job::WORK_AREA);
    listen(&runtime, &work_area, &options.run_id)?;
    let mut results = Results {
        run_id: options.run_id.clone(),
        days: Vec::with_capacity(days.len()),
    };
    for &day in days {
        let result = runtime.block_on(job::run_day(job, day, &options, &events));
        if let Err(error) = &result {
            let advice = exit::advice(error);
            events.line(&format!("klieg: {day}: {error}{advice}"));
        }
        results.days.push((day, result));
    }
    Ok(results)
}

/// Stops on SIGINT and SIGTERM.
fn listen(runtime: &Runtime, work_area: &Path, run_id: &str) -> anyhow::Result<()> {
    let _entered = runtime.enter();
    for (kind, code) in [
        (SignalKind::interrupt(), 130),
        (SignalKind::terminate(), 143),
    ] {
        let mut signal = signal(kind).context("cannot listen for signals")?;
        let (work_area, run_id) = (work_area.to_path_buf(), run_id.to_owned());
        drop(runtime.spawn(async move {
            if signal.recv().await.is_some() {
                stop_now(&work_area, &run_id, code);
            }
        }));
    }
    Ok(())
}

/// Ends the process between two exchanges; what is staged is removed.
fn stop_now(work_area: &Path, run_id: &str, code: i32) {
    store::stop_publishing();
    render::say("klieg: stopped by a signal; nothing of the step at work was published");
    store::remove_staging(work_area, run_id);
    std::process::exit(code);
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the clock comes in"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// `20160708T010203Z-` and eight digits that tell runs of one second apart.
fn run_id() -> String {
    let now = chrono::DateTime::<chrono::Utc>::from(now());
    let key = format!(
        "{} {}",
        std::process::id(),
        now.timestamp_nanos_opt().unwrap_or(0)
    );
    let unique: String = store::fingerprint([key.as_str()].into_iter())
        .chars()
        .take(8)
        .collect();
    format!("{}-{unique}", now.format("%Y%m%dT%H%M%SZ"))
}

impl Results {
    fn count(&self, is_counted: impl Fn(&DayOutcome) -> bool) -> usize {
        let done = self
            .days
            .iter()
            .filter_map(|(_, result)| result.as_ref().ok());
        done.filter(|outcome| is_counted(outcome)).count()
    }

    fn failed(&self) -> usize {
        self.days
            .iter()
            .filter(|(_, result)| result.is_err())
            .count()
    }

    /// 0; the code of the failure where every day failed alike; 1 where some failed.
    pub(super) fn exit_code(&self) -> u8 {
        let mut codes = self
            .days
            .iter()
            .map(|(_, result)| result.as_ref().map_or_else(exit::day_code, |_| 0));
        let first = codes.next().unwrap_or(0);
        if codes.all(|code| code == first) {
            first
        } else {
            exit::FAILED
        }
    }

    fn status(&self) -> &'static str {
        match (self.failed(), self.days.len()) {
            (0, _) => "ok",
            (failed, all) if failed == all => "failed",
            _ => "partial",
        }
    }

    fn rows(&self) -> u64 {
        let done = self
            .days
            .iter()
            .filter_map(|(_, result)| result.as_ref().ok());
        done.filter_map(|outcome| outcome.steps.first())
            .map(|step| step.rows)
            .sum()
    }

    fn print(&self, output: Output, job: &Job) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match output {
            Output::Json => {
                let days = self.days.iter().map(|(day, result)| match result {
                    Ok(outcome) => {
                        json!({ "day": day.to_string(), "status": "ok", "outcome": outcome })
                    }
                    Err(error) => json!({
                        "day": day.to_string(),
                        "status": "failed",
                        "error": error.to_string(),
                        "exit_code": exit::day_code(error),
                    }),
                });
                let value = json!({
                    "run_id": self.run_id,
                    "job": job.name,
                    "status": self.status(),
                    "days": days.collect::<Vec<_>>(),
                });
                serde_json::to_writer_pretty(&mut out, &value)?;
                writeln!(out)?;
            }
            Output::Props => {
                let is_published =
                    |outcome: &DayOutcome| outcome.steps.iter().any(|step| step.published);
                writeln!(out, "status={}", self.status())?;
                writeln!(out, "run_id={}", self.run_id)?;
                writeln!(out, "partitions_ok={}", self.count(is_published))?;
                writeln!(out, "partitions_failed={}", self.failed())?;
                writeln!(
                    out,
                    "partitions_skipped={}",
                    self.count(|outcome| !is_published(outcome))
                )?;
                writeln!(out, "rows={}", self.rows())?;
                writeln!(out, "output_path={}", job.config.warehouse.display())?;
                writeln!(out, "report={}", self.report_path(job).display())?;
            }
            Output::Table => {
                writeln!(
                    out,
                    "{:<10}  {:<10}  {:<10}  {:>12}  result",
                    "day", "step", "status", "rows"
                )?;
                for (day, result) in &self.days {
                    print_day(&mut out, *day, result)?;
                }
            }
        }
        Ok(())
    }

    fn report_path(&self, job: &Job) -> PathBuf {
        job.config
            .warehouse
            .join(job::WORK_AREA)
            .join("history")
            .join(&self.run_id)
    }
}

fn print_day(
    out: &mut impl std::io::Write,
    day: Day,
    result: &Result<DayOutcome, DayError>,
) -> std::io::Result<()> {
    match result {
        Ok(outcome) => {
            for step in &outcome.steps {
                let status = if step.published {
                    "published"
                } else {
                    "skipped"
                };
                let path = step
                    .outputs
                    .first()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default();
                writeln!(
                    out,
                    "{day}  {:<10}  {status:<10}  {:>12}  {path}",
                    step.step, step.rows
                )?;
            }
            Ok(())
        }
        Err(_) => writeln!(
            out,
            "{day}  {:<10}  failed      {:>12}  see the message above",
            "", ""
        ),
    }
}
