//! Two drivers of one kernel: Spark's batch EM, and minibatches followed by batch epochs.

use std::convert::Infallible;
use std::num::NonZeroUsize;

use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::EStep;
use crate::ml::lda::LdaModel;
use crate::ml::lda::LdaParams;
use crate::ml::lda::Optimizer;
use crate::ml::lda::ScoreBy;
use crate::ml::lda::Sums;
use crate::ml::lda::Topics;
use crate::ml::lda::Workers;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::counts::Cells;
use crate::ml::lda::counts::Counts;
use crate::ml::lda::counts::Grain;
use crate::ml::lda::elsewhere::cells_of;
use crate::ml::lda::kernel::Row;
use crate::ml::lda::merge;
use crate::ml::lda::shard::EmShard;
use crate::ml::lda::shard::FoldInShard;
use crate::ml::lda::shard::Likelihood;
use crate::ml::lda::shard::LogPrior;
use crate::ml::lda::shard::Part;
use crate::ml::lda::shard::TopicsOf;
use crate::ml::lda::shard::random_start;
use crate::ml::lda::simd::dispatch;
use crate::ml::lda::simd::with_vectors;
use crate::ml::lda::start;
use crate::ml::rng;
use crate::parallel;

/// Progress: one finished epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// 0-based.
    pub index: u32,
    /// Mean log-likelihood of a token of the training corpus before this epoch's update of the topics.
    pub log_likelihood_per_token: f64,
    /// Logarithm of the posterior before this epoch's update, but for a constant: Σ n ln(φ·θ) + a Σ ln θ + b Σ ln φ, with the
    /// priors in θ and φ; of minibatches, each under its own topics.
    pub objective: f64,
}

/// What a fit gives.
#[derive(Debug)]
pub struct Fit {
    /// The topics.
    pub model: LdaModel,
    /// N_j of each shard, documents × topics, where the driver keeps them (`em`).
    pub(super) mixtures: Option<Vec<Vec<f32>>>,
}

/// A use of random numbers.
const USE_ORDER: u64 = 2;
/// Step of minibatch t: (τ0 + t)^−κ (Hoffman, Blei, Bach, NIPS 2010).
const TAU0: f64 = 10.0;
const KAPPA: f64 = 0.6;
/// Minibatches of one pass, where there are as many shards.
const MINIBATCHES: usize = 100;
/// Batch epochs stop when the log-likelihood of a token moves less than this share twice in a row.
const CONVERGED: f64 = 1e-4;
/// Words whose prior is summed at a time.
const PRIOR_WORDS: usize = 1 << 14;

/// Fits topics to a corpus and reports each epoch.
///
/// The result is a function of `corpus` and `params` alone, bit for bit, whatever `threads` is. Memory: S twice in f64, φ of
/// the shards at work, for `em` also K floats a document.
pub fn fit(
    corpus: &Corpus,
    params: &CheckedLdaParams,
    threads: NonZeroUsize,
    progress: impl FnMut(Epoch),
) -> Fit {
    let Ok(fit) = fit_on::<Nobody>(corpus, params, (threads, None), progress);
    fit
}

/// No workers.
enum Nobody {}

impl Workers for Nobody {
    type Error = Infallible;

    fn e_step(&self, _: &[u32], _: &Topics, _: EStep) -> Result<Sums, Infallible> {
        match *self {}
    }

    fn scores(&self, _: &ScoreBy, _: &mut dyn FnMut(f32)) -> Result<(), Infallible> {
        match *self {}
    }
}

/// The same, bit for bit, with the E-steps of minibatches and batch epochs on workers, where there are some. `em` keeps a mix for
/// each document and stays on threads.
///
/// # Errors
/// What the workers say.
pub fn fit_on<W: Workers>(
    corpus: &Corpus,
    params: &CheckedLdaParams,
    (threads, workers): (NonZeroUsize, Option<&W>),
    mut progress: impl FnMut(Epoch),
) -> Result<Fit, W::Error> {
    let params = params.get();
    let spare = match params.optimizer {
        Optimizer::Em => 0,
        Optimizer::Online => usize::max(4, params.topics / 5).min(8),
    };
    let mut run = Run {
        corpus,
        params,
        threads,
        workers,
        progress: &mut progress,
    };
    with_vectors!(params.topics + spare, N => run.fit::<N>(spare))
}

struct Run<'a, W> {
    corpus: &'a Corpus,
    params: &'a LdaParams,
    threads: NonZeroUsize,
    workers: Option<&'a W>,
    progress: &'a mut dyn FnMut(Epoch),
}

/// A shard and its number.
type Numbered<'a> = (u32, Shard<'a>);

impl<W: Workers> Run<'_, W> {
    fn fit<const N: usize>(&mut self, spare: usize) -> Result<Fit, W::Error> {
        let topics = self.params.topics;
        let (rows, mixtures) = match self.params.optimizer {
            Optimizer::Em => {
                let (rows, mixtures) = self.em::<N>();
                let flat = |shard: Vec<Row<N>>| {
                    shard
                        .iter()
                        .flat_map(|row| row.as_flattened()[..topics].to_vec())
                        .collect()
                };
                (rows, Some(mixtures.into_iter().map(flat).collect()))
            }
            Optimizer::Online => {
                let wide = self.online::<N>(topics + spare)?;
                (
                    self.polish(merge::merge_topics(wide, topics + spare, topics))?,
                    None,
                )
            }
        };
        let counts = rows
            .iter()
            .flat_map(|row| row.as_flattened()[..topics].iter().copied())
            .collect();
        Ok(Fit {
            model: LdaModel::new(topics, f64::from(self.params.word_pseudo_count), counts),
            mixtures,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    fn report(&mut self, index: u32, likelihood: Likelihood, words: f64) -> f64 {
        let log_likelihood_per_token = likelihood.data / self.corpus.tokens().max(1) as f64;
        (self.progress)(Epoch {
            index,
            log_likelihood_per_token,
            objective: likelihood.data + likelihood.documents + words,
        });
        log_likelihood_per_token
    }

    /// Returns b Σ ln φ.
    fn log_prior<const N: usize>(&self, counts: &Counts<N>, topics: usize) -> f64 {
        let b = self.params.word_pseudo_count;
        let words: Vec<u32> = (0..).take(counts.words()).collect();
        let chunks: Vec<_> = words.chunks(PRIOR_WORDS).collect();
        let sums = parallel::map(self.threads, &chunks, |words| {
            dispatch(LogPrior {
                counts,
                words,
                prior: (topics, b),
            })
        });
        f64::from(b) * sums.iter().sum::<f64>()
    }

    /// Spark's `EMLDAOptimizer`: random soft assignment of each pair, then Jacobi updates of N_j and S. Returns both.
    fn em<const N: usize>(&mut self) -> (Vec<Cells<N>>, Vec<Vec<Row<N>>>) {
        let (topics, seed) = (self.params.topics, self.params.seed);
        let mut counts = Counts::<N>::zero(self.corpus.vocabulary(), self.grain());
        let mut next = Counts::zero(self.corpus.vocabulary(), self.grain());
        let shards = self.corpus.shards();
        let mut mixtures = Vec::with_capacity(shards.len());
        for wave in shards.chunks(self.threads.get() * 2) {
            let starts = parallel::map(self.threads, wave, |shard| {
                random_start(shard, topics, seed)
            });
            for (shard, (part, mixture)) in wave.iter().zip(starts) {
                counts.add(&part, shard.dictionary, 1.0);
                mixtures.push(mixture);
            }
        }
        for index in 0..self.params.iterations {
            let likelihood = self.em_epoch(&counts, &mut mixtures, &mut next);
            let words = self.log_prior(&counts, topics);
            self.report(index, likelihood, words);
            std::mem::swap(&mut counts, &mut next);
            next.clear();
        }
        (counts.into_rows(), mixtures)
    }

    /// One Jacobi update: adds to `next`, which is 0, and replaces the mixtures of every shard.
    fn em_epoch<const N: usize>(
        &self,
        counts: &Counts<N>,
        mixtures: &mut [Vec<Row<N>>],
        next: &mut Counts<N>,
    ) -> Likelihood {
        let threads = self.threads;
        let (topics, a) = (self.params.topics, self.params.document_pseudo_count);
        let b = self.params.word_pseudo_count;
        let mut likelihood = Likelihood::default();
        let wave_shards = threads.get() * 2;
        let shards = self.corpus.shards();
        for (shards, mixtures) in shards
            .chunks(wave_shards)
            .zip(mixtures.chunks_mut(wave_shards))
        {
            let wave: Vec<_> = shards.iter().zip(mixtures.iter()).collect();
            let parts = parallel::map(threads, &wave, |(shard, mixtures)| {
                dispatch(EmShard {
                    shard: **shard,
                    topics_of: TopicsOf::Counts(counts, b),
                    prior: (topics, a),
                    mixtures,
                })
            });
            for ((mixture, shard), (part, updated)) in mixtures.iter_mut().zip(shards).zip(parts) {
                next.add(&part, shard.dictionary, 1.0);
                likelihood += part.likelihood;
                *mixture = updated;
            }
        }
        likelihood
    }

    /// Folds `shards` in under the topics of `counts`.
    fn fold_in<const N: usize>(
        &self,
        shards: &[Numbered<'_>],
        counts: &Counts<N>,
        topics: usize,
    ) -> Vec<Part<N>> {
        let a = self.params.document_pseudo_count;
        let b = self.params.word_pseudo_count;
        parallel::map(self.threads, shards, |&(_, shard)| {
            dispatch(FoldInShard {
                shard,
                topics_of: TopicsOf::Counts(counts, b),
                prior: (topics, a),
            })
        })
    }

    /// Adds `weight` times the parts of `shards`, and their likelihoods one by one, so that waves do not matter.
    fn add_parts<const N: usize>(
        &self,
        counts: &mut Counts<N>,
        parts: &[Part<N>],
        shards: &[Numbered<'_>],
        (weight, likelihood): (f64, &mut Likelihood),
    ) {
        for (part, (_, shard)) in parts.iter().zip(shards) {
            counts.add(part, shard.dictionary, weight);
            *likelihood += part.likelihood;
        }
    }

    /// Minibatches with natural-gradient steps, from topics made of documents.
    #[expect(clippy::cast_precision_loss, reason = "ratios of document counts")]
    fn online<const N: usize>(&mut self, topics: usize) -> Result<Vec<Cells<N>>, W::Error> {
        let start = start::of_documents::<N>(self.corpus, topics, self.params.seed);
        let mut counts = Counts::new(start, self.grain());
        let batch_shards = self.corpus.shards().len().div_ceil(MINIBATCHES).max(1);
        let mut step = 0.0;
        for epoch in 0..self.params.online_epochs {
            let mut likelihood = Likelihood::default();
            for batch in self.shard_order(epoch).chunks(batch_shards) {
                let documents: usize = batch.iter().map(|(_, shard)| shard.keys.len()).sum();
                let scale = self.corpus.documents() as f64 / documents as f64;
                let rho = f64::powf(TAU0 + step, -KAPPA);
                step += 1.0;
                likelihood += self.minibatch(batch, &mut counts, topics, (rho, scale))?;
            }
            let words = self.log_prior(&counts, topics);
            self.report(epoch, likelihood, words);
        }
        Ok(counts.into_rows())
    }

    /// S = (1 − ρ) S + ρ · scale · what the batch adds.
    fn minibatch<const N: usize>(
        &self,
        batch: &[Numbered<'_>],
        counts: &mut Counts<N>,
        topics: usize,
        (rho, scale): (f64, f64),
    ) -> Result<Likelihood, W::Error> {
        // The batch sees one S: all of it is folded in before any of it is added.
        let Some(workers) = self.workers else {
            let parts = self.fold_in(batch, counts, topics);
            counts.decay(rho, self.corpus.tokens());
            let mut likelihood = Likelihood::default();
            self.add_parts(counts, &parts, batch, (rho * scale, &mut likelihood));
            return Ok(likelihood);
        };
        let table = self.table(batch, counts, topics);
        counts.decay(rho, self.corpus.tokens());
        let step = self.step(counts.weight(rho * scale));
        let sums = workers.e_step(&numbers(batch), &table, step)?;
        counts.add_sums(table.words(), &sums.cells, topics);
        Ok(sums.likelihood())
    }

    fn step(&self, weight: f64) -> EStep {
        EStep {
            document_pseudo_count: self.params.document_pseudo_count,
            weight,
            tokens: self.corpus.tokens(),
        }
    }

    fn grain(&self) -> Grain {
        Grain::of(self.corpus.tokens())
    }

    /// Returns φ of the words of some shards.
    fn table<const N: usize>(
        &self,
        shards: &[Numbered<'_>],
        counts: &Counts<N>,
        topics: usize,
    ) -> Topics {
        let mut is_used = vec![false; counts.words()];
        for &word in shards.iter().flat_map(|(_, shard)| shard.dictionary) {
            is_used[word as usize] = true;
        }
        let used = (0..).zip(is_used).filter(|(_, is_used)| *is_used);
        let words: Vec<u32> = used.map(|(word, _)| word).collect();
        let chunks: Vec<_> = words.chunks(PRIOR_WORDS).collect();
        let b = self.params.word_pseudo_count;
        let rows = parallel::map(self.threads, &chunks, |words| counts.phi(words, topics, b));
        let cells = cells_of(&rows, topics);
        drop(chunks);
        Topics::new(topics, words, cells)
    }

    /// Adds to `next`, which is 0, what all shards give under the topics of `counts`.
    fn epoch<const N: usize>(
        &self,
        shards: &[Numbered<'_>],
        counts: &Counts<N>,
        next: &mut Counts<N>,
    ) -> Result<Likelihood, W::Error> {
        let topics = self.params.topics;
        if let Some(workers) = self.workers {
            let table = self.table(shards, counts, topics);
            let step = self.step(next.weight(1.0));
            let sums = workers.e_step(&numbers(shards), &table, step)?;
            next.add_sums(table.words(), &sums.cells, topics);
            return Ok(sums.likelihood());
        }
        let mut likelihood = Likelihood::default();
        // Few parts are held at a time.
        for wave in shards.chunks(self.threads.get() * 2) {
            let parts = self.fold_in(wave, counts, topics);
            self.add_parts(next, &parts, wave, (1.0, &mut likelihood));
        }
        Ok(likelihood)
    }

    /// Batch epochs until the log-likelihood stands still.
    fn polish<const N: usize>(&mut self, rows: Vec<Cells<N>>) -> Result<Vec<Cells<N>>, W::Error> {
        let corpus = self.corpus;
        let shards: Vec<_> = (0..).zip(corpus.shards()).collect();
        let topics = self.params.topics;
        let mut counts = Counts::new(rows, self.grain());
        let mut next = Counts::zero(self.corpus.vocabulary(), self.grain());
        let (mut last, mut still) = (f64::NEG_INFINITY, 0);
        for index in 0..self.params.iterations {
            let likelihood = self.epoch(&shards, &counts, &mut next)?;
            let words = self.log_prior(&counts, topics);
            std::mem::swap(&mut counts, &mut next);
            next.clear();
            let mean = self.report(self.params.online_epochs + index, likelihood, words);
            let stands = (mean - last).abs() < CONVERGED * mean.abs();
            still = if stands { still + 1 } else { 0 };
            last = mean;
            if still == 2 {
                break;
            }
        }
        Ok(counts.into_rows())
    }

    /// Shards in the order of this epoch.
    fn shard_order(&self, epoch: u32) -> Vec<Numbered<'_>> {
        let mut order: Vec<_> = (0_u32..).zip(self.corpus.shards()).collect();
        order.sort_by_key(|(index, _)| {
            let key = [USE_ORDER, u64::from(epoch), u64::from(*index)];
            rng::bits(self.params.seed, &key)
        });
        order
    }
}

fn numbers(shards: &[Numbered<'_>]) -> Vec<u32> {
    shards.iter().map(|(number, _)| *number).collect()
}
