//! `klieg eval counts`: counts of words per IP of table files, for comparison with other engines.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use serde_json::json;

use crate::engine;
use crate::engine::Engine as _;
use crate::engine::Local;
use crate::engine::Progress;
use crate::engine::words;
use crate::engine::words::WordsSpec;
use crate::store::Store;
use crate::table::flow::WORD_COLUMNS;

/// Count the words of each IP in files of the table flow
#[derive(clap::Args, Debug)]
pub(super) struct CountsArgs {
    /// Parquet files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Threads, default: all processors
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Memory of the plan: what a run has by default.
const MEMORY_BYTES: u64 = 2 << 30;

pub(super) fn run(args: &CountsArgs) -> anyhow::Result<u8> {
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("cannot count processors")?,
    };
    let started = Instant::now();
    let files: Vec<_> = args
        .files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.get())
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let engine = Local::try_new(
        threads,
        MEMORY_BYTES,
        &std::env::temp_dir(),
        &Store::local(Path::new("/")),
    )?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    runtime.block_on(async {
        let scan = engine::scan(&engine, &files, &WORD_COLUMNS).await?;
        let plan = words::plan_counts(WordsSpec { compat_spot: false }, scan, threads.get())?;
        let plan_of = |_| Ok(Arc::clone(&plan));
        engine
            .run(&plan_of, &mut batches, &Arc::new(Progress::default()))
            .await
    })?;
    let value = json!({
        "pairs": batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
        "seconds": started.elapsed().as_secs_f64(),
    });
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &value)?;
    writeln!(out)?;
    Ok(0)
}
