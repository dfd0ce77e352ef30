//! `klieg eval`: runs a part on data from a file, for comparison with other programs.

use std::fs::File;
use std::io::BufWriter;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use arrow::array::AsArray as _;
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::datatypes::Int64Type;
use clap::Subcommand;
use clap::ValueEnum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::cli::eval_counts;
use crate::cli::eval_counts::CountsArgs;
use crate::cli::exit;
use crate::ml::lda;
use crate::ml::lda::Corpus;
use crate::ml::lda::Epoch;
use crate::ml::lda::Fit;
use crate::ml::lda::LdaModel;
use crate::ml::lda::LdaParams;
use crate::ml::lda::MixtureParams;
use crate::ml::lda::Optimizer;
use crate::ml::rng;

/// Run one part of klieg on data from a file, to compare it with other programs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    Counts(CountsArgs),
    Topics(TopicsArgs),
}

/// Fit the topic model to a corpus.
///
/// The corpus is a Parquet file with the integer columns doc, word and count. One of 20 documents is held out: its tokens are
/// split in two, the topic mix is folded in on one half, and the perplexity of the other half is reported. stdout gets one JSON
/// object, stderr a line an epoch.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  klieg eval topics --corpus train.parquet --optimizer online --topics 20 --out phi.f32")]
struct TopicsArgs {
    /// Parquet file with the columns doc, word, count.
    #[arg(long, value_name = "FILE.parquet")]
    corpus: PathBuf,
    /// em: Spark's update; online: minibatches, then batch epochs.
    #[arg(long, value_enum, default_value_t = OptimizerArg::Online)]
    optimizer: OptimizerArg,
    /// K, 1 to 56.
    #[arg(long, default_value_t = 20)]
    topics: usize,
    /// Batch epochs: exactly (em), at most (online).
    #[arg(long, default_value_t = 20)]
    iterations: u32,
    /// Document concentration in Spark's convention, over 1. Default: 1.02 (em), 1.1 (online).
    #[arg(long)]
    alpha: Option<f32>,
    /// Topic concentration in Spark's convention, over 1. Default: 1.001 (em), 1.01 (online).
    #[arg(long)]
    beta: Option<f32>,
    /// Models, each with its own seed; the best by held-out perplexity is written.
    #[arg(long, default_value = "1")]
    models: NonZeroUsize,
    /// Seed of the first model.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; the result does not depend on it. Default: the processors of the machine.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Where the topics go: float32, one row of K for each word id.
    #[arg(long, value_name = "PHI.f32")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum OptimizerArg {
    Em,
    Online,
}

const ONLINE_EPOCHS: u32 = 2;
const HELD_OUT_ONE_OF: u64 = 20;
const USE_HELD_OUT: u64 = 101;
const USE_HALF: u64 = 102;
const FOLD_IN: MixtureParams = MixtureParams {
    document_pseudo_count: 0.1,
    sweeps_max: 30,
    tolerance: 1e-3,
};

impl TopicsArgs {
    fn params(&self, model: u64) -> LdaParams {
        let (optimizer, alpha, beta) = match self.optimizer {
            OptimizerArg::Em => (Optimizer::Em, 1.02, 1.001),
            OptimizerArg::Online => (Optimizer::Online, 1.1, 1.01),
        };
        LdaParams {
            optimizer,
            topics: self.topics,
            document_pseudo_count: self.alpha.unwrap_or(alpha) - 1.0,
            word_pseudo_count: self.beta.unwrap_or(beta) - 1.0,
            iterations: self.iterations,
            online_epochs: ONLINE_EPOCHS,
            seed: self.seed.wrapping_add(model),
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.part {
        Part::Counts(args) => eval_counts::run(args),
        Part::Topics(args) => topics(args),
    }
}

/// Training corpus and the two halves of the documents held out.
struct Corpora {
    train: Corpus,
    observed: Corpus,
    held: Corpus,
}

fn topics(args: &TopicsArgs) -> anyhow::Result<u8> {
    args.params(0).check().map_err(exit::Usage::from)?;
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("cannot count processors")?,
    };
    let started = Instant::now();
    let corpora = read_corpus(&args.corpus, args.seed)?;
    let read_s = started.elapsed().as_secs_f64();
    let mut best: Option<(f64, LdaModel)> = None;
    let mut fits = Vec::new();
    for index in 0..args.models.get() as u64 {
        let (report, perplexity, model) = fit_one(args, index, &corpora, threads)?;
        fits.push(report);
        if best.as_ref().is_none_or(|best| perplexity < best.0) {
            best = Some((perplexity, model));
        }
    }
    let (perplexity, model) = best.context("no model was fitted")?;
    if let Some(path) = &args.out {
        write_topics(path, &model).with_context(|| path.display().to_string())?;
    }
    let value = json!({
        "documents": corpora.train.documents(),
        "documents_held_out": corpora.held.documents(),
        "vocabulary": corpora.train.vocabulary(),
        "tokens": corpora.train.tokens(),
        "read_s": read_s,
        "perplexity": perplexity,
        "models": fits,
    });
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &value)?;
    writeln!(out)?;
    Ok(0)
}

fn fit_one(
    args: &TopicsArgs,
    index: u64,
    corpora: &Corpora,
    threads: NonZeroUsize,
) -> anyhow::Result<(serde_json::Value, f64, LdaModel)> {
    let params = args.params(index).check()?;
    let started = Instant::now();
    let mut epochs = Vec::new();
    let Fit { model, .. } = lda::fit(&corpora.train, &params, threads, |epoch| {
        let seconds = started.elapsed().as_secs_f64();
        show_epoch(index, epoch, seconds);
        epochs.push(json!({
            "seconds": seconds,
            "objective": epoch.objective,
            "log_likelihood_per_token": epoch.log_likelihood_per_token,
        }));
    });
    let fit_s = started.elapsed().as_secs_f64();
    if std::io::stderr().is_terminal() {
        drop(writeln!(std::io::stderr()));
    }
    let perplexity = model.perplexity(&corpora.observed, &corpora.held, &FOLD_IN, threads);
    let report = json!({
        "seed": params.get().seed,
        "fit_s": fit_s,
        "perplexity": perplexity,
        "epochs": epochs,
    });
    Ok((report, perplexity, model))
}

/// One line an epoch; on a terminal it is overwritten by the next.
fn show_epoch(model: u64, epoch: Epoch, seconds: f64) {
    let mut stderr = std::io::stderr().lock();
    let end = if stderr.is_terminal() { '\r' } else { '\n' };
    let perplexity = (-epoch.log_likelihood_per_token).exp();
    // Nobody is left to tell where stderr is closed.
    drop(write!(
        stderr,
        "model {model}, epoch {}: training perplexity {perplexity:.1}, {seconds:.1} s{end}",
        epoch.index
    ));
}

fn read_corpus(path: &Path, seed: u64) -> anyhow::Result<Corpora> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).with_context(name)?;
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut vocabulary = 0;
    for batch in reader.build().with_context(name)? {
        let batch = batch.with_context(name)?;
        let [documents, words, counts] =
            ["doc", "word", "count"].map(|column| integers(&batch, column));
        let (documents, words, counts) = (documents?, words?, counts?);
        for ((&document, &word), &count) in documents.iter().zip(&words).zip(&counts) {
            let document = document.cast_unsigned();
            let word = u32::try_from(word).with_context(|| format!("{}: word {word}", name()))?;
            let count =
                u32::try_from(count).with_context(|| format!("{}: count {count}", name()))?;
            vocabulary = vocabulary.max(word as usize + 1);
            if rng::bits(seed, &[USE_HELD_OUT, document]).is_multiple_of(HELD_OUT_ONE_OF) {
                let half = rng::thin(seed, &[USE_HALF, document, u64::from(word)], count);
                parts[1].push((document, word, half));
                parts[2].push((document, word, count - half));
            } else {
                parts[0].push((document, word, count));
            }
        }
    }
    let [train, observed, held] = parts.map(|part| Corpus::try_new(part, vocabulary));
    Ok(Corpora {
        train: train.with_context(name)?,
        observed: observed.with_context(name)?,
        held: held.with_context(name)?,
    })
}

/// Returns an integer column as i64.
fn integers(batch: &RecordBatch, column: &str) -> anyhow::Result<Vec<i64>> {
    let array = batch
        .column_by_name(column)
        .with_context(|| format!("the corpus has no column `{column}`"))?;
    let array = cast(array, &DataType::Int64).with_context(|| format!("column `{column}`"))?;
    anyhow::ensure!(array.null_count() == 0, "column `{column}` has nulls");
    Ok(array.as_primitive::<Int64Type>().values().to_vec())
}

#[expect(clippy::cast_possible_truncation, reason = "the file is float32")]
fn write_topics(path: &Path, model: &LdaModel) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for probability in model.word_probabilities() {
        out.write_all(&(probability as f32).to_le_bytes())?;
    }
    out.flush()
}
