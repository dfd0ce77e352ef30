//! `klieg run`: runs the steps of a job on days.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::exit;
use crate::cli::job_args::DayArgs;
use crate::cli::job_args::JobArgs;
use crate::cli::job_args::ReprocessArg;
use crate::cli::job_args::parse_time;
use crate::cli::lineage;
use crate::cli::metrics;
use crate::cli::outcome;
use crate::cli::outcome::Properties;
use crate::cli::outcome::Results;
use crate::cli::render;
use crate::cli::render::Renderer;
use crate::config::Config;
use crate::engine::cluster::Lazy;
use crate::job;
use crate::job::Chronicle;
use crate::job::DayError;
use crate::job::Job;
use crate::job::Reprocess;
use crate::job::RunOptions;
use crate::step::Events;
use crate::step::Severity;
use crate::store;
use crate::table::period::Period;

/// Run a job on one day or a range of days
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg run jobs/flow.yaml --date 2016-07-08 -D warehouse=/data/spot
  klieg run jobs/flow.yaml --from 2016-07-01 --to 2016-07-08 --steps ingest
  klieg run jobs/flow.yaml --date 20160708 --reprocess all --output json
  klieg run jobs/flow.yaml --date 2016-07-08 --hours 0-7 --steps ingest
  klieg run jobs/flow.yaml --date yesterday --oozie --timeout 6h
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
    /// Take days that another tool has written as they are, instead of refusing them
    #[arg(long)]
    adopt: bool,
    /// The last day first
    #[arg(long)]
    backwards: bool,
    /// Days at a time; they share the threads and the memory
    #[arg(long, default_value = "1", value_name = "N")]
    parallel: NonZeroUsize,
    /// Begin no more days after so many have failed
    #[arg(long, value_name = "N")]
    max_failures: Option<NonZeroUsize>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    scheduler: SchedulerArgs,
}

/// Which workers run the plans.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Workers")]
struct ClusterArgs {
    /// Run plans on workers: the name of a pool whose klieg worker processes look for drivers, or local:N for N processes
    /// of this machine, which end with the run
    #[arg(long, value_name = "POOL")]
    cluster: Option<String>,
    /// Wait for so many workers before the first plan; the same as -D pool.min_workers=N
    #[arg(long, value_name = "N", requires = "cluster")]
    min_workers: Option<usize>,
    /// Wait so long for a pool that another driver uses and for its workers; the same as -D pool.patience=TIME
    #[arg(long, value_name = "TIME", requires = "cluster")]
    pool_wait: Option<String>,
    /// Run a plan in which something went wrong so often again; the same as -D cluster.max_reruns=N
    #[arg(long, value_name = "N", requires = "cluster")]
    max_reruns: Option<u32>,
}

impl ClusterArgs {
    /// Returns the options that are keys of the configuration.
    fn settings(&self) -> Vec<(String, String)> {
        let number = |value: Option<usize>| value.map(|value| value.to_string());
        let options = [
            ("pool.min_workers", number(self.min_workers)),
            ("pool.patience", self.pool_wait.clone()),
            (
                "cluster.max_reruns",
                number(self.max_reruns.and_then(|n| usize::try_from(n).ok())),
            ),
        ];
        let given = options.into_iter();
        let given = given.filter_map(|(key, value)| Some((key.to_owned(), value?)));
        given.collect()
    }
}

/// How a scheduler calls and is answered.
#[derive(clap::Args, Debug)]
struct SchedulerArgs {
    /// Form of the summary on stdout: table unless --oozie or --quiet says otherwise
    #[arg(long, value_enum)]
    output: Option<Output>,
    /// Write status, run and counts to FILE too: properties, or a JSON map with --output json (Azkaban)
    #[arg(long, value_name = "FILE")]
    output_properties: Option<PathBuf>,
    /// For decision nodes: exit with 0 also where days failed (1), input is missing (3) or another run is at work (4), and
    /// tell by status= on stdout
    #[arg(long)]
    oozie: bool,
    /// Exit with CODE where there was nothing to do, input is missing (3) or another run is at work (4); Airflow takes 99
    /// for skipped
    #[arg(long, value_name = "CODE", conflicts_with = "oozie")]
    skip_exit_code: Option<u8>,
    /// Wait so long for another run of the same day, such as 10m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    lock_wait: Duration,
    /// Stop after so long as SIGTERM does, such as 6h, and exit with 124
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// Nothing on stderr but failures, no summary unless --output asks for it; for cron
    #[arg(short, long)]
    quiet: bool,
    /// Form of what people read on stderr
    #[arg(long, value_enum, default_value = "text", conflicts_with = "quiet")]
    log: Log,
    /// Write metrics to FILE as the textfile collector of Prometheus reads them
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// Append OpenLineage events to FILE, one a line
    #[arg(long, value_name = "FILE")]
    lineage_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// A line a day and step
    Table,
    /// key=value lines for schedulers, at most 2 KB
    Props,
    /// Everything, in one line
    Json,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Log {
    /// Lines and bars
    Text,
    /// One JSON map a line: ts, level, logger, run_id, msg
    Json,
}

/// How a range is done.
pub(super) struct Range {
    pub(super) reprocess: Reprocess,
    pub(super) parallel: NonZeroUsize,
    pub(super) failures_max: usize,
    pub(super) adopt: bool,
    pub(super) lock_wait: Duration,
    pub(super) timeout: Option<Duration>,
    /// Workers; `None` for plans in this process.
    pub(super) cluster: Option<String>,
}

impl Range {
    /// One day, where it is not up to date.
    pub(super) const ONE: Self = Self {
        reprocess: Reprocess::Changed,
        parallel: NonZeroUsize::MIN,
        failures_max: usize::MAX,
        adopt: false,
        lock_wait: Duration::ZERO,
        timeout: None,
        cluster: None,
    };
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let job = args.job.job_with(&args.cluster.settings())?;
    let mut days = args.days.periods(&job)?;
    if args.backwards {
        days.reverse();
    }
    let range = Range {
        reprocess: args.reprocess.into(),
        parallel: args.parallel,
        failures_max: args.max_failures.map_or(usize::MAX, NonZeroUsize::get),
        adopt: args.adopt,
        lock_wait: args.scheduler.lock_wait,
        timeout: args.scheduler.timeout,
        cluster: args.cluster.cluster.clone(),
    };
    let scheduler = &args.scheduler;
    render::set_form(match (scheduler.quiet, scheduler.log) {
        (true, _) => render::Form::Quiet,
        (_, Log::Json) => render::Form::Json,
        (_, Log::Text) => render::Form::Text,
    });
    match execute(&job, &days, &range) {
        Ok(results) => scheduler.answer(&results, &job),
        Err(error) => scheduler.answer_error(error),
    }
}

impl SchedulerArgs {
    fn output(&self) -> Option<Output> {
        let default = match (self.oozie, self.quiet) {
            (true, _) => Some(Output::Props),
            (_, true) => None,
            _ => Some(Output::Table),
        };
        self.output.or(default)
    }

    fn answer(&self, results: &Results, job: &Job) -> anyhow::Result<u8> {
        let properties = results.properties(job);
        match self.output() {
            Some(Output::Table) => results.print_table()?,
            Some(Output::Json) => results.print_json(job)?,
            Some(Output::Props) => print_text(&outcome::lines(&properties))?,
            None => {}
        }
        self.write_files(&properties)?;
        if let Some(path) = &self.metrics_file {
            outcome::replace(path, &metrics::text(results, job, (path, now())))?;
        }
        if let Some(path) = &self.lineage_file {
            lineage::append(path, results, job, now())?;
        }
        Ok(self.code(results.exit_code(), results.is_idle()))
    }

    /// Nothing was begun.
    fn answer_error(&self, error: anyhow::Error) -> anyhow::Result<u8> {
        let code = exit::code(&error);
        let answer = self.code(code, false);
        let properties = vec![("status", exit::status(code).to_owned())];
        self.write_files(&properties)?;
        if answer == code && !self.oozie {
            return Err(error);
        }
        let advice = exit::warehouse_advice(&error);
        render::fail(&format!("{}{advice}", exit::message(&error)));
        if self.output() == Some(Output::Props) {
            print_text(&outcome::lines(&properties))?;
        }
        Ok(answer)
    }

    fn write_files(&self, properties: &Properties) -> anyhow::Result<()> {
        let as_json = self.output == Some(Output::Json);
        let path = self.output_properties.as_deref();
        path.map_or(Ok(()), |path| outcome::write(path, properties, as_json))
    }

    fn code(&self, code: u8, is_idle: bool) -> u8 {
        let may_pass = matches!(code, exit::INPUT | exit::LOCKED);
        match self.skip_exit_code {
            Some(skip) if may_pass || is_idle => skip,
            _ if self.oozie && (may_pass || code == exit::FAILED) => exit::DONE,
            _ => code,
        }
    }
}

/// Runs a job on days in order and tells people on stderr.
pub(super) fn execute(job: &Job, periods: &[Period], range: &Range) -> anyhow::Result<Results> {
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
    render::set_run(&options.run_id);
    listen(&runtime, &options, range.timeout)?;
    let results = job::run_days(job, periods, &options, &events, runtime.handle())?;
    Ok(Results {
        run_id: options.run_id,
        days: periods.iter().copied().zip(results).collect(),
    })
}

/// What a run is told beside its job.
pub(super) fn options(config: &Config, range: &Range) -> anyhow::Result<RunOptions> {
    let run_id = run_id();
    let chronicle = Chronicle {
        run_id: run_id.clone(),
        now,
    };
    let store = job::open_store(config)?.recording(Arc::new(chronicle));
    let cluster = match &range.cluster {
        Some(name) => Some(Arc::new(Lazy::try_new(name, config, &store, &run_id)?)),
        None => None,
    };
    Ok(RunOptions {
        store,
        run_id,
        cluster,
        reprocess: range.reprocess,
        parallel: range.parallel,
        failures_max: range.failures_max,
        adopt: range.adopt,
        lock_wait: range.lock_wait,
        tell_failure,
        now,
    })
}

pub(super) fn tell_failure(events: &dyn Events, day: Period, error: &DayError) {
    let advice = exit::advice(error);
    let text = format!("{day}: {error}{advice}");
    events.tell(Severity::Failure, &text);
}

/// Stops on SIGINT and SIGTERM, and after the longest time.
fn listen(
    runtime: &Runtime,
    options: &RunOptions,
    timeout: Option<Duration>,
) -> anyhow::Result<()> {
    let _entered = runtime.enter();
    for (kind, code) in [
        (SignalKind::interrupt(), 130),
        (SignalKind::terminate(), 143),
    ] {
        let mut signal = signal(kind).context("cannot listen for signals")?;
        let options = options.clone();
        drop(runtime.spawn(async move {
            if signal.recv().await.is_some() {
                stop_now(&options, "by a signal", code);
            }
        }));
    }
    if let Some(timeout) = timeout {
        let options = options.clone();
        drop(runtime.spawn(async move {
            tokio::time::sleep(timeout).await;
            let why = format!("after --timeout {} s", timeout.as_secs_f64());
            stop_now(&options, &why, TIMED_OUT);
        }));
    }
    Ok(())
}

/// As `timeout(1)` has it.
const TIMED_OUT: i32 = 124;

/// Ends the process between two exchanges; what is staged is removed.
fn stop_now(options: &RunOptions, why: &str, code: i32) {
    store::stop_publishing();
    render::fail(&format!(
        "stopped {why}; nothing of the step at work was published"
    ));
    store::remove_staging(&options.store, &options.run_id);
    if let Some(cluster) = &options.cluster {
        cluster.retract();
    }
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

fn print_text(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
