//! `klieg run`: runs the steps of a job on days.

use std::io::Write as _;
use std::num::NonZeroUsize;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::exit;
use crate::cli::job_args::DayArgs;
use crate::cli::job_args::JobArgs;
use crate::cli::job_args::ReprocessArg;
use crate::cli::render;
use crate::cli::render::Renderer;
use crate::config::Config;
use crate::job;
use crate::job::DayError;
use crate::job::DayOutcome;
use crate::job::DayResult;
use crate::job::Job;
use crate::job::Reprocess;
use crate::job::RunOptions;
use crate::step::Events;
use crate::store;
use crate::store::Store;
use crate::table::hive::Day;

/// Run a job on one day or a range of days
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg run jobs/flow.yaml --date 2016-07-08 -D warehouse=/data/spot
  klieg run jobs/flow.yaml --from 2016-07-01 --to 2016-07-08 --steps ingest
  klieg run jobs/flow.yaml --date 20160708 --reprocess all --output json
  klieg run jobs/flow.yaml --from 2016-06-01 --to 2016-07-08 --backwards --reprocess failed --max-failures 3

A day that is up to date (same raw files, settings and version) is skipped. A day that fails
does not stop the others. What is published is replaced in one step, so readers see the old
result or the new one; a step that fails or is stopped changes nothing.")]
pub(super) struct Args {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    days: DayArgs,
    /// Which days to do
    #[arg(long, value_enum, default_value = "changed", value_name = "WHICH")]
    reprocess: ReprocessArg,
    /// The last day first
    #[arg(long)]
    backwards: bool,
    /// Days at a time; they share the threads and the memory
    #[arg(long, default_value = "1", value_name = "N")]
    parallel: NonZeroUsize,
    /// Begin no more days after so many have failed
    #[arg(long, value_name = "N")]
    max_failures: Option<NonZeroUsize>,
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
    days: Vec<(Day, DayResult)>,
}

/// How a range is done.
pub(super) struct Range {
    pub(super) reprocess: Reprocess,
    pub(super) parallel: NonZeroUsize,
    pub(super) failures_max: usize,
}

impl Range {
    /// One day, where it is not up to date.
    pub(super) const ONE: Self = Self {
        reprocess: Reprocess::Changed,
        parallel: NonZeroUsize::MIN,
        failures_max: usize::MAX,
    };
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let mut days = args.days.days()?;
    if args.backwards {
        days.reverse();
    }
    let job = args.job.job()?;
    let range = Range {
        reprocess: args.reprocess.into(),
        parallel: args.parallel,
        failures_max: args.max_failures.map_or(usize::MAX, NonZeroUsize::get),
    };
    let results = execute(&job, &days, &range)?;
    results.print(args.output, &job)?;
    Ok(results.exit_code())
}

/// Runs a job on days in order and tells people on stderr.
pub(super) fn execute(job: &Job, days: &[Day], range: &Range) -> anyhow::Result<Results> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One more, so that signals are heard while all others compute.
        .worker_threads(job.config.threads.get() + 1)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let options = options(&job.config, range)?;
    let events = match range.parallel.get() {
        1 => Renderer::new(),
        _ => Renderer::of_lines(),
    };
    listen(&runtime, &options.store, &options.run_id)?;
    let results = job::run_days(job, days, &options, &events, runtime.handle())?;
    Ok(Results {
        run_id: options.run_id,
        days: days.iter().copied().zip(results).collect(),
    })
}

/// What a run is told beside its job.
pub(super) fn options(config: &Config, range: &Range) -> anyhow::Result<RunOptions> {
    Ok(RunOptions {
        store: Store::open(config)?,
        run_id: run_id(),
        reprocess: range.reprocess,
        parallel: range.parallel,
        failures_max: range.failures_max,
        tell_failure,
        now,
    })
}

pub(super) fn tell_failure(events: &dyn Events, day: Day, error: &DayError) {
    let advice = exit::advice(error);
    events.line(&format!("klieg: {day}: {error}{advice}"));
}

/// Stops on SIGINT and SIGTERM.
fn listen(runtime: &Runtime, store: &Store, run_id: &str) -> anyhow::Result<()> {
    let _entered = runtime.enter();
    for (kind, code) in [
        (SignalKind::interrupt(), 130),
        (SignalKind::terminate(), 143),
    ] {
        let mut signal = signal(kind).context("cannot listen for signals")?;
        let (store, run_id) = (store.clone(), run_id.to_owned());
        drop(runtime.spawn(async move {
            if signal.recv().await.is_some() {
                stop_now(&store, &run_id, code);
            }
        }));
    }
    Ok(())
}

/// Ends the process between two exchanges; what is staged is removed.
fn stop_now(store: &Store, run_id: &str, code: i32) {
    store::stop_publishing();
    render::say("klieg: stopped by a signal; nothing of the step at work was published");
    store::remove_staging(store, run_id);
    std::process::exit(code);
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the clock comes in"
)]
pub(super) fn now() -> std::time::SystemTime {
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
    fn done(&self) -> impl Iterator<Item = &DayOutcome> {
        self.days.iter().filter_map(|(_, result)| match result {
            DayResult::Done(outcome) => Some(outcome),
            _ => None,
        })
    }

    fn failed(&self) -> usize {
        let codes = self.days.iter().map(|(_, result)| code(result));
        codes.flatten().filter(|&code| code != 0).count()
    }

    /// 0; the code of the failure where every day that was begun failed alike; 1 where some failed.
    pub(super) fn exit_code(&self) -> u8 {
        let mut codes = self.days.iter().filter_map(|(_, result)| code(result));
        let first = codes.next().unwrap_or(0);
        if codes.all(|code| code == first) {
            first
        } else {
            exit::FAILED
        }
    }

    fn status(&self) -> &'static str {
        match (self.failed(), self.done().count()) {
            (0, _) => "ok",
            (_, 0) => "failed",
            _ => "partial",
        }
    }

    fn rows(&self) -> u64 {
        let first = self.done().filter_map(|outcome| outcome.steps.first());
        first.map(|step| step.rows).sum()
    }

    fn print(&self, output: Output, job: &Job) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match output {
            Output::Json => {
                let days = self.days.iter().map(|(day, result)| json_of(*day, result));
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
                let published = self.done().filter(|outcome| has_published(outcome)).count();
                let failed = self.failed();
                writeln!(out, "status={}", self.status())?;
                writeln!(out, "run_id={}", self.run_id)?;
                writeln!(out, "partitions_ok={published}")?;
                writeln!(out, "partitions_failed={failed}")?;
                let others = self.days.len() - published - failed;
                writeln!(out, "partitions_skipped={others}")?;
                writeln!(out, "rows={}", self.rows())?;
                writeln!(out, "output_path={}", job.config.warehouse)?;
                writeln!(out, "report={}", self.report_path(job))?;
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

    fn report_path(&self, job: &Job) -> String {
        format!("{}/.klieg/history/{}", job.config.warehouse, self.run_id)
    }
}

/// 0 or the code of a failure; `None` for a day that was not begun.
fn code(result: &DayResult) -> Option<u8> {
    match result {
        DayResult::Done(_) => Some(0),
        DayResult::Failed(error) => Some(exit::day_code(error)),
        DayResult::NotSelected | DayResult::NotBegun => None,
    }
}

fn has_published(outcome: &DayOutcome) -> bool {
    outcome.steps.iter().any(|step| step.published)
}

/// Why a day was not begun.
const NOT_SELECTED: &str = "not selected by --reprocess";
const NOT_BEGUN: &str = "not begun, --max-failures was reached";

fn json_of(day: Day, result: &DayResult) -> serde_json::Value {
    let day = day.to_string();
    match result {
        DayResult::Done(outcome) => json!({ "day": day, "status": "ok", "outcome": outcome }),
        DayResult::Failed(error) => json!({
            "day": day,
            "status": "failed",
            "error": error.to_string(),
            "exit_code": exit::day_code(error),
        }),
        DayResult::NotSelected => {
            json!({ "day": day, "status": "skipped", "reason": NOT_SELECTED })
        }
        DayResult::NotBegun => json!({ "day": day, "status": "skipped", "reason": NOT_BEGUN }),
    }
}

fn print_day(out: &mut impl std::io::Write, day: Day, result: &DayResult) -> std::io::Result<()> {
    let outcome = match result {
        DayResult::Done(outcome) => outcome,
        DayResult::Failed(_) => {
            return print_row(out, day, ("", "failed"), "see the message above");
        }
        DayResult::NotSelected => return print_row(out, day, ("", "skipped"), NOT_SELECTED),
        DayResult::NotBegun => return print_row(out, day, ("", "skipped"), NOT_BEGUN),
    };
    for step in &outcome.steps {
        let status = match step.published {
            true => "published",
            false => "skipped",
        };
        let path = step.outputs.first();
        writeln!(
            out,
            "{day}  {:<10}  {status:<10}  {:>12}  {}",
            step.step,
            step.rows,
            path.map_or("", String::as_str)
        )?;
    }
    Ok(())
}

fn print_row(
    out: &mut impl std::io::Write,
    day: Day,
    (step, status): (&str, &str),
    note: &str,
) -> std::io::Result<()> {
    writeln!(out, "{day}  {step:<10}  {status:<10}  {:>12}  {note}", "")
}
