//! Two drivers of one kernel: Spark's batch EM, and minibatches followed by batch epochs.

use std::num::NonZeroUsize;

use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::LdaModel;
use crate::ml::lda::LdaParams;
use crate::ml::lda::Optimizer;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::kernel::Row;
use crate::ml::lda::merge;
use crate::ml::lda::shard::EmShard;
use crate::ml::lda::shard::FoldInShard;
use crate::ml::lda::shard::Likelihood;
use crate::ml::lda::shard::LogPrior;
use crate::ml::lda::shard::Part;
use crate::ml::lda::shard::TopicsOf;
use crate::ml::lda::shard::random_start;
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
    mut progress: impl FnMut(Epoch),
) -> Fit {
    let params = params.get();
    let arch = pulp::Arch::new();
    let spare = match params.optimizer {
        Optimizer::Em => 0,
        Optimizer::Online => usize::max(4, params.topics / 5).min(8),
    };
    let lanes = (params.topics + spare).div_ceil(8) * 8;
    let mut run = Run {
        corpus,
        params,
        threads,
        arch,
        progress: &mut progress,
    };
    match lanes {
        8 => run.fit::<8>(spare),
        16 => run.fit::<16>(spare),
        24 => run.fit::<24>(spare),
        32 => run.fit::<32>(spare),
        40 => run.fit::<40>(spare),
        48 => run.fit::<48>(spare),
        56 => run.fit::<56>(spare),
        _ => run.fit::<64>(spare),
    }
}

struct Run<'a> {
    corpus: &'a Corpus,
    params: &'a LdaParams,
    threads: NonZeroUsize,
    arch: pulp::Arch,
    progress: &'a mut dyn FnMut(Epoch),
}

/// S, and its sums over words: both are `scale` times what is stored, so that a decay touches no row.
pub(super) struct Counts<const KP: usize> {
    rows: Vec<[f64; KP]>,
    sums: [f64; KP],
    scale: f64,
}

/// Below this the rows are scaled: exact sums have room for numbers so much larger than the tokens.
const SCALE_MIN: f64 = 1.0 / 64.0;

impl<const KP: usize> Counts<KP> {
    fn zero(words: usize) -> Self {
        Self {
            rows: vec![[0.0; KP]; words],
            sums: [0.0; KP],
            scale: 1.0,
        }
    }

    /// Rounds every cell to a multiple of 2^−20.
    pub(super) fn new(mut rows: Vec<[f64; KP]>) -> Self {
        let mut sums = [0.0; KP];
        for row in &mut rows {
            for (sum, value) in sums.iter_mut().zip(row) {
                *value = exact(*value);
                *sum += *value;
            }
        }
        Self {
            rows,
            sums,
            scale: 1.0,
        }
    }

    /// All counts times 1 − `rho`.
    fn decay(&mut self, rho: f64) {
        self.scale *= 1.0 - rho;
        if self.scale < SCALE_MIN {
            let (rows, scale) = (std::mem::take(&mut self.rows), self.scale);
            let scaled = rows.into_iter().map(|row| row.map(|value| value * scale));
            *self = Self::new(scaled.collect());
        }
    }

    /// Adds `weight` times a part. Cells stay multiples of 2^−20, so the order of parts does not matter.
    fn add(&mut self, arch: pulp::Arch, part: &Part<KP>, dictionary: &[u32], weight: f64) {
        arch.dispatch(|| self.add_inlined(part, dictionary, weight));
    }

    #[inline(always)]
    fn add_inlined(&mut self, part: &Part<KP>, dictionary: &[u32], weight: f64) {
        let weight = weight / self.scale;
        // Sums stay in registers while rows are written.
        let mut sums = self.sums;
        for (row, &word) in part.rows.iter().zip(dictionary) {
            let cells = &mut self.rows[word as usize];
            for ((cell, sum), value) in cells.iter_mut().zip(&mut sums).zip(row) {
                let value = exact(f64::from(*value) * weight);
                *cell += value;
                *sum += value;
            }
        }
        self.sums = sums;
    }

    /// Sets every count to 0.
    fn clear(&mut self) {
        self.rows.fill([0.0; KP]);
        self.sums = [0.0; KP];
        self.scale = 1.0;
    }

    /// Returns φ rows of the words in `dictionary`; lanes from `topics` on are 0.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the kernel works in f32"
    )]
    pub(super) fn phi(&self, dictionary: &[u32], topics: usize, b: f32) -> Vec<Row<KP>> {
        let b = f64::from(b);
        let words = self.rows.len() as f64;
        let scale = self.scale;
        let mut norms = [0.0; KP];
        for (norm, sum) in norms.iter_mut().zip(&self.sums).take(topics) {
            *norm = 1.0 / (sum * scale + words * b);
        }
        let mut rows = vec![[0.0; KP]; dictionary.len()];
        for (row, &word) in rows.iter_mut().zip(dictionary) {
            let counts = &self.rows[word as usize];
            for ((lane, count), norm) in row.iter_mut().zip(counts).zip(&norms) {
                *lane = ((count * scale + b) * norm) as f32;
            }
        }
        rows
    }

    /// Returns S.
    fn into_rows(self) -> Vec<[f64; KP]> {
        let scale = self.scale;
        let rows = self.rows.into_iter();
        rows.map(|row| row.map(|value| value * scale)).collect()
    }
}

/// Rounds a count to a multiple of 2^−20, so that f64 sums are exact in any order.
pub(super) fn exact(count: f64) -> f64 {
    // 1.5 · 2^(52 − 20): adding it makes the last bit of a number worth 2^−20.
    const ROUND: f64 = 6_442_450_944.0;
    (count + ROUND) - ROUND
}

impl Run<'_> {
    fn fit<const KP: usize>(&mut self, spare: usize) -> Fit {
        let topics = self.params.topics;
        let (rows, mixtures) = match self.params.optimizer {
            Optimizer::Em => {
                let (rows, mixtures) = self.em::<KP>();
                let flat = |shard: Vec<Row<KP>>| {
                    shard
                        .iter()
                        .flat_map(|row| row[..topics].to_vec())
                        .collect()
                };
                (rows, Some(mixtures.into_iter().map(flat).collect()))
            }
            Optimizer::Online => {
                let wide = self.online::<KP>(topics + spare);
                (
                    self.polish(merge::merge_topics(wide, topics + spare, topics)),
                    None,
                )
            }
        };
        let counts = rows
            .iter()
            .flat_map(|row| row[..topics].iter().copied())
            .collect();
        Fit {
            model: LdaModel::new(topics, f64::from(self.params.word_pseudo_count), counts),
            mixtures,
        }
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
    fn log_prior<const KP: usize>(&self, counts: &Counts<KP>, topics: usize) -> f64 {
        let (arch, b) = (self.arch, self.params.word_pseudo_count);
        let words: Vec<u32> = (0..).take(counts.rows.len()).collect();
        let chunks: Vec<_> = words.chunks(PRIOR_WORDS).collect();
        let sums = parallel::map(self.threads, &chunks, |words| {
            arch.dispatch(LogPrior {
                counts,
                words,
                prior: (topics, b),
            })
        });
        f64::from(b) * sums.iter().sum::<f64>()
    }

    /// Spark's `EMLDAOptimizer`: random soft assignment of each pair, then Jacobi updates of N_j and S. Returns both.
    fn em<const KP: usize>(&mut self) -> (Vec<[f64; KP]>, Vec<Vec<Row<KP>>>) {
        let (topics, seed, arch) = (self.params.topics, self.params.seed, self.arch);
        let mut counts = Counts::<KP>::zero(self.corpus.vocabulary());
        let mut next = Counts::zero(self.corpus.vocabulary());
        let mut mixtures = Vec::with_capacity(self.corpus.shards.len());
        for wave in self.corpus.shards.chunks(self.threads.get() * 2) {
            let starts = parallel::map(self.threads, wave, |shard| {
                random_start(shard, topics, seed)
            });
            for (shard, (part, mixture)) in wave.iter().zip(starts) {
                counts.add(arch, &part, &shard.dictionary, 1.0);
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
    fn em_epoch<const KP: usize>(
        &self,
        counts: &Counts<KP>,
        mixtures: &mut [Vec<Row<KP>>],
        next: &mut Counts<KP>,
    ) -> Likelihood {
        let (arch, threads) = (self.arch, self.threads);
        let (topics, a) = (self.params.topics, self.params.document_pseudo_count);
        let b = self.params.word_pseudo_count;
        let mut likelihood = Likelihood::default();
        let wave_shards = threads.get() * 2;
        let waves = self.corpus.shards.chunks(wave_shards);
        for (shards, mixtures) in waves.zip(mixtures.chunks_mut(wave_shards)) {
            let wave: Vec<_> = shards.iter().zip(mixtures.iter()).collect();
            let parts = parallel::map(threads, &wave, |(shard, mixtures)| {
                arch.dispatch(EmShard {
                    shard,
                    topics_of: TopicsOf::Counts(counts, b),
                    prior: (topics, a),
                    mixtures,
                })
            });
            for ((mixture, shard), (part, updated)) in mixtures.iter_mut().zip(shards).zip(parts) {
                next.add(arch, &part, &shard.dictionary, 1.0);
                likelihood += part.likelihood;
                *mixture = updated;
            }
        }
        likelihood
    }

    /// Folds `shards` in under the topics of `counts`.
    fn fold_in<const KP: usize>(
        &self,
        shards: &[&Shard],
        counts: &Counts<KP>,
        topics: usize,
    ) -> Vec<Part<KP>> {
        let (arch, a) = (self.arch, self.params.document_pseudo_count);
        let b = self.params.word_pseudo_count;
        parallel::map(self.threads, shards, |shard| {
            arch.dispatch(FoldInShard {
                shard,
                topics_of: TopicsOf::Counts(counts, b),
                prior: (topics, a),
            })
        })
    }

    /// Adds `weight` times the parts of `shards`; returns their likelihood.
    fn add_parts<const KP: usize>(
        &self,
        counts: &mut Counts<KP>,
        parts: &[Part<KP>],
        shards: &[&Shard],
        weight: f64,
    ) -> Likelihood {
        let mut likelihood = Likelihood::default();
        for (part, shard) in parts.iter().zip(shards) {
            counts.add(self.arch, part, &shard.dictionary, weight);
            likelihood += part.likelihood;
        }
        likelihood
    }

    /// Minibatches with natural-gradient steps, from topics made of documents.
    #[expect(clippy::cast_precision_loss, reason = "ratios of document counts")]
    fn online<const KP: usize>(&mut self, topics: usize) -> Vec<[f64; KP]> {
        let mut counts = Counts::new(start::of_documents::<KP>(
            self.corpus,
            topics,
            self.params.seed,
        ));
        let batch_shards = self.corpus.shards.len().div_ceil(MINIBATCHES).max(1);
        let mut step = 0.0;
        for epoch in 0..self.params.online_epochs {
            let mut likelihood = Likelihood::default();
            for batch in self.shard_order(epoch).chunks(batch_shards) {
                let documents: usize = batch.iter().map(|shard| shard.keys.len()).sum();
                let scale = self.corpus.documents() as f64 / documents as f64;
                let rho = f64::powf(TAU0 + step, -KAPPA);
                step += 1.0;
                likelihood += self.minibatch(batch, &mut counts, topics, (rho, scale));
            }
            let words = self.log_prior(&counts, topics);
            self.report(epoch, likelihood, words);
        }
        counts.into_rows()
    }

    /// S = (1 − ρ) S + ρ · scale · what the batch adds.
    fn minibatch<const KP: usize>(
        &self,
        batch: &[&Shard],
        counts: &mut Counts<KP>,
        topics: usize,
        (rho, scale): (f64, f64),
    ) -> Likelihood {
        // The batch sees one S: all of it is folded in before any of it is added.
        let parts = self.fold_in(batch, counts, topics);
        counts.decay(rho);
        self.add_parts(counts, &parts, batch, rho * scale)
    }

    /// Batch epochs until the log-likelihood stands still.
    fn polish<const KP: usize>(&mut self, rows: Vec<[f64; KP]>) -> Vec<[f64; KP]> {
        let corpus = self.corpus;
        let shards: Vec<_> = corpus.shards.iter().collect();
        let topics = self.params.topics;
        let mut counts = Counts::new(rows);
        let mut next = Counts::zero(self.corpus.vocabulary());
        let (mut last, mut still) = (f64::NEG_INFINITY, 0);
        for index in 0..self.params.iterations {
            let mut likelihood = Likelihood::default();
            // Few parts are held at a time.
            for wave in shards.chunks(self.threads.get() * 2) {
                let parts = self.fold_in(wave, &counts, topics);
                likelihood += self.add_parts(&mut next, &parts, wave, 1.0);
            }
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
        counts.into_rows()
    }

    /// Shards in the order of this epoch.
    fn shard_order(&self, epoch: u32) -> Vec<&Shard> {
        let mut order: Vec<_> = (0_u64..).zip(&self.corpus.shards).collect();
        order.sort_by_key(|(index, _)| {
            rng::bits(self.params.seed, &[USE_ORDER, u64::from(epoch), *index])
        });
        order.into_iter().map(|(_, shard)| shard).collect()
    }
}
