//! `klieg rollback`: brings a partition back to what an earlier run published.

use std::io::Write as _;

use crate::cli::exit;
use crate::cli::job_args::Output;
use crate::cli::job_args::SiteArgs;
use crate::cli::render::Renderer;
use crate::cli::run;
use crate::job;
use crate::job::History;
use crate::job::Partition;
use crate::job::Record;
use crate::table::period::Period;

/// Bring a partition back to what it was after an earlier run
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg history --date 2016-07-08 -D warehouse=/data/spot
  klieg rollback flow/2016-07-08 --to 20160709T010203Z-1a2b3c4d -D warehouse=/data/spot

It is a publication: what it replaces is kept in turn, and history shows it. Only what is
younger than `keep` can be brought back. The next run of that day does the day again where
its raw files, the settings or the version are not those of the result that is back.")]
pub(super) struct Args {
    /// Such as flow/2016-07-08
    partition: Partition,
    /// The run, as history shows it
    #[arg(long, value_name = "RUN")]
    to: String,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    site: SiteArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    let config = args.site.layers()?.check()?;
    let options = run::options(&config, &run::Range::ONE)?;
    let store = &options.store;
    store.check_folder(store.root())?;
    let known = History::read_run(store, &args.to)?;
    let wanted = args.partition.period;
    let day = wanted.day.to_string();
    let has_changed = |record: &Record| {
        let changed = record.day.parse::<Period>();
        changed.is_ok_and(|changed| changed.day == wanted.day)
    };
    if !known.records.iter().any(has_changed) {
        let text = format!(
            "no run `{}` has published {}; klieg history --date {day} lists them",
            args.to, args.partition
        );
        return Err(exit::NoResult(text).into());
    }
    let done = match job::roll_partition_back(args.partition, &args.to, &options) {
        Ok(done) => done,
        Err(error) => {
            run::tell_failure(&Renderer::of_lines(), args.partition.period, &error);
            return Ok(exit::day_code(&error));
        }
    };
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &done)?;
        writeln!(out)?;
        let code = if done.gone.is_empty() {
            exit::DONE
        } else {
            exit::INPUT
        };
        return Ok(code);
    }
    if !done.gone.is_empty() {
        let gone = done.gone.join(", ");
        writeln!(
            out,
            "{}: nothing was changed: {gone} of run {} is not kept any more (keep, klieg gc)",
            done.partition, done.to
        )?;
        return Ok(exit::INPUT);
    }
    if done.folders.is_empty() {
        writeln!(out, "{}: is as run {} left it", done.partition, done.to)?;
        return Ok(exit::DONE);
    }
    let folders = done.folders.join(", ");
    writeln!(
        out,
        "{}: {folders} put back to run {}, by run {}",
        done.partition, done.to, done.run
    )?;
    Ok(0)
}
