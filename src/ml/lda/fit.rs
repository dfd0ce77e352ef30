//! Two drivers of one kernel: Spark's batch EM, and minibatches followed by batch epochs.

use std::num::NonZeroUsize;

use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::LdaModel;
use crate::ml::lda::LdaParams;
use crate::ml::lda::Optimizer;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::kernel;
use crate::ml::lda::kernel::Row;
use crate::ml::lda::merge;
use crate::ml::rng;
use crate::parallel;

/// Progress: one finished epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// 0-based.
    pub index: u32,
    /// Mean log-likelihood of a token of the training corpus before this epoch's update of the topics.
    pub log_likelihood_per_token: f64,
}

/// Uses of random numbers.
const USE_START: u64 = 1;
const USE_ORDER: u64 = 2;
const USE_DOCUMENTS: u64 = 3;
/// Sweeps of a document under fixed topics; fewer cost quality (perplexity 334–350 with 4 against 309–314).
const SWEEPS_MAX: u32 = 10;
const SWEEP_TOLERANCE: f32 = 0.01;
/// Step of minibatch t: (τ0 + t)^−κ (Hoffman, Blei, Bach, NIPS 2010).
const TAU0: f64 = 10.0;
const KAPPA: f64 = 0.6;
/// Minibatches of one pass, where there are as many shards.
const MINIBATCHES: usize = 100;
/// Documents of which the start of one topic is made.
const START_DOCUMENTS: usize = 50;
/// Tokens that such a document has, where there are documents of so many.
const START_TOKENS: f64 = 20.0;
/// Batch epochs stop when the log-likelihood of a token moves less than this share twice in a row.
const CONVERGED: f64 = 1e-4;

/// Fits topics to a corpus and reports each epoch.
///
/// The result is a function of `corpus` and `params` alone, bit for bit, whatever `threads` is. Memory: S twice in f64, φ of
/// the shards at work, for `em` also K floats a document.
pub fn fit(
    corpus: &Corpus,
    params: &CheckedLdaParams,
    threads: NonZeroUsize,
    mut progress: impl FnMut(Epoch),
) -> LdaModel {
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
    let counts = match lanes {
        8 => run.fit::<8>(spare),
        16 => run.fit::<16>(spare),
        24 => run.fit::<24>(spare),
        32 => run.fit::<32>(spare),
        40 => run.fit::<40>(spare),
        48 => run.fit::<48>(spare),
        56 => run.fit::<56>(spare),
        _ => run.fit::<64>(spare),
    };
    LdaModel::new(params.topics, f64::from(params.word_pseudo_count), counts)
}

struct Run<'a> {
    corpus: &'a Corpus,
    params: &'a LdaParams,
    threads: NonZeroUsize,
    arch: pulp::Arch,
    progress: &'a mut dyn FnMut(Epoch),
}

/// S, and its sums over words.
struct Counts<const KP: usize> {
    rows: Vec<[f64; KP]>,
    sums: [f64; KP],
}

impl<const KP: usize> Counts<KP> {
    fn new(rows: Vec<[f64; KP]>) -> Self {
        let mut sums = [0.0; KP];
        for row in &rows {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += value);
        }
        Self { rows, sums }
    }

    /// Returns φ rows of the words in `dictionary`; lanes from `topics` on are 0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the kernel works in f32"
    )]
    fn phi(&self, dictionary: &[u32], topics: usize, b: f32) -> Vec<Row<KP>> {
        let b = f64::from(b);
        let words = self.rows.len() as f64;
        let scale = self.sums.map(|sum| 1.0 / (sum + words * b));
        let rows = dictionary.iter().map(|&word| {
            let mut row = [0.0; KP];
            let counts = &self.rows[word as usize];
            for ((lane, count), scale) in row.iter_mut().zip(counts).zip(&scale).take(topics) {
                *lane = ((count + b) * scale) as f32;
            }
            row
        });
        rows.collect()
    }
}

/// What a shard adds to S, for the words of its dictionary.
struct Part<const KP: usize> {
    rows: Vec<Row<KP>>,
    log_likelihood: f64,
}

impl<const KP: usize> Part<KP> {
    /// Adds the part times `scale` to S, whose cells are multiples of 2^−20 and stay so.
    fn add_to(&self, counts: &mut [[f64; KP]], dictionary: &[u32], scale: f64) {
        for (row, &word) in self.rows.iter().zip(dictionary) {
            for (sum, value) in counts[word as usize].iter_mut().zip(row) {
                *sum += exact(f64::from(*value) * scale);
            }
        }
    }
}

/// Rounds a count to a multiple of 2^−20, so that f64 sums are exact in any order.
fn exact(count: f64) -> f64 {
    // 1.5 · 2^(52 − 20): adding it makes the last bit of a number worth 2^−20.
    const ROUND: f64 = 6_442_450_944.0;
    (count + ROUND) - ROUND
}

impl Run<'_> {
    fn fit<const KP: usize>(&mut self, spare: usize) -> Vec<f64> {
        let topics = self.params.topics;
        let rows = match self.params.optimizer {
            Optimizer::Em => self.em::<KP>(),
            Optimizer::Online => {
                let wide = self.online::<KP>(topics + spare);
                self.polish(merge::merge_topics(wide, topics + spare, topics))
            }
        };
        rows.iter()
            .flat_map(|row| row[..topics].iter().copied())
            .collect()
    }

    fn zero<const KP: usize>(&self) -> Vec<[f64; KP]> {
        vec![[0.0; KP]; self.corpus.vocabulary()]
    }

    /// Maps shards in waves of two a thread, so that few parts are held, and adds each to `rows`; returns the log-likelihood.
    fn add_parts<const KP: usize>(
        &self,
        shards: &[&Shard],
        (rows, scale): (&mut [[f64; KP]], f64),
        map: impl Fn(pulp::Arch, &Shard) -> Part<KP> + Sync,
    ) -> f64 {
        let (arch, threads) = (self.arch, self.threads);
        let mut log_likelihood = 0.0;
        for wave in shards.chunks(threads.get() * 2) {
            let parts = parallel::map(threads, wave, |shard| map(arch, shard));
            for (part, shard) in parts.iter().zip(wave) {
                part.add_to(rows, &shard.dictionary, scale);
                log_likelihood += part.log_likelihood;
            }
        }
        log_likelihood
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    fn report(&mut self, index: u32, log_likelihood: f64) -> f64 {
        let log_likelihood_per_token = log_likelihood / self.corpus.tokens().max(1) as f64;
        (self.progress)(Epoch {
            index,
            log_likelihood_per_token,
        });
        log_likelihood_per_token
    }

    /// Spark's `EMLDAOptimizer`: random soft assignment of each pair, then Jacobi updates of N_j and S.
    fn em<const KP: usize>(&mut self) -> Vec<[f64; KP]> {
        let (topics, seed) = (self.params.topics, self.params.seed);
        let mut rows = self.zero::<KP>();
        let starts = parallel::map(self.threads, &self.corpus.shards, |shard| {
            random_start::<KP>(shard, topics, seed)
        });
        let mut mixtures = Vec::with_capacity(starts.len());
        for (shard, (part, mixture)) in self.corpus.shards.iter().zip(starts) {
            part.add_to(&mut rows, &shard.dictionary, 1.0);
            mixtures.push(mixture);
        }
        for index in 0..self.params.iterations {
            let counts = Counts::new(rows);
            rows = self.zero();
            let log_likelihood = self.em_epoch(&counts, &mut mixtures, &mut rows);
            self.report(index, log_likelihood);
        }
        rows
    }

    /// One Jacobi update: adds to `rows`, which are 0, and replaces the mixtures of every shard.
    fn em_epoch<const KP: usize>(
        &self,
        counts: &Counts<KP>,
        mixtures: &mut [Vec<Row<KP>>],
        rows: &mut [[f64; KP]],
    ) -> f64 {
        let (arch, threads) = (self.arch, self.threads);
        let (topics, a) = (self.params.topics, self.params.document_pseudo_count);
        let b = self.params.word_pseudo_count;
        let mut log_likelihood = 0.0;
        let wave_shards = threads.get() * 2;
        let waves = self.corpus.shards.chunks(wave_shards);
        for (shards, mixtures) in waves.zip(mixtures.chunks_mut(wave_shards)) {
            let wave: Vec<_> = shards.iter().zip(mixtures.iter()).collect();
            let parts = parallel::map(threads, &wave, |(shard, mixtures)| {
                arch.dispatch(EmShard {
                    shard,
                    phi: &counts.phi(&shard.dictionary, topics, b),
                    prior: (topics, a),
                    mixtures,
                })
            });
            for ((mixture, shard), (part, updated)) in mixtures.iter_mut().zip(shards).zip(parts) {
                part.add_to(rows, &shard.dictionary, 1.0);
                log_likelihood += part.log_likelihood;
                *mixture = updated;
            }
        }
        log_likelihood
    }

    /// Minibatches with natural-gradient steps, from topics made of documents.
    #[expect(clippy::cast_precision_loss, reason = "ratios of document counts")]
    fn online<const KP: usize>(&mut self, topics: usize) -> Vec<[f64; KP]> {
        let (a, b) = (
            self.params.document_pseudo_count,
            self.params.word_pseudo_count,
        );
        let mut counts = Counts::new(self.document_start::<KP>(topics));
        let batch_shards = self.corpus.shards.len().div_ceil(MINIBATCHES).max(1);
        let mut step = 0.0;
        for epoch in 0..self.params.online_epochs {
            let order = self.shard_order(epoch);
            let mut log_likelihood = 0.0;
            for batch in order.chunks(batch_shards) {
                let documents: usize = batch.iter().map(|shard| shard.keys.len()).sum();
                let scale = self.corpus.documents() as f64 / documents as f64;
                let rho = f64::powf(TAU0 + step, -KAPPA);
                step += 1.0;
                let mut rows = counts.rows.clone();
                for value in rows.iter_mut().flatten() {
                    *value = exact(*value * (1.0 - rho));
                }
                log_likelihood += self.add_parts(batch, (&mut rows, rho * scale), |arch, shard| {
                    arch.dispatch(FoldInShard {
                        shard,
                        phi: &counts.phi(&shard.dictionary, topics, b),
                        prior: (topics, a),
                    })
                });
                counts = Counts::new(rows);
            }
            self.report(epoch, log_likelihood);
        }
        counts.rows
    }

    /// Batch epochs until the log-likelihood stands still.
    fn polish<const KP: usize>(&mut self, mut rows: Vec<[f64; KP]>) -> Vec<[f64; KP]> {
        let (topics, a, b) = (
            self.params.topics,
            self.params.document_pseudo_count,
            self.params.word_pseudo_count,
        );
        let shards: Vec<_> = self.corpus.shards.iter().collect();
        let (mut last, mut still) = (f64::NEG_INFINITY, 0);
        for index in 0..self.params.iterations {
            let counts = Counts::new(rows);
            rows = self.zero();
            let log_likelihood = self.add_parts(&shards, (&mut rows, 1.0), |arch, shard| {
                arch.dispatch(FoldInShard {
                    shard,
                    phi: &counts.phi(&shard.dictionary, topics, b),
                    prior: (topics, a),
                })
            });
            let mean = self.report(self.params.online_epochs + index, log_likelihood);
            still = if (mean - last).abs() < CONVERGED * mean.abs() {
                still + 1
            } else {
                0
            };
            last = mean;
            if still == 2 {
                break;
            }
        }
        rows
    }

    /// Shards in the order of this epoch.
    fn shard_order(&self, epoch: u32) -> Vec<&Shard> {
        let mut order: Vec<_> = (0_u64..).zip(&self.corpus.shards).collect();
        order.sort_by_key(|(index, _)| {
            rng::bits(self.params.seed, &[USE_ORDER, u64::from(epoch), *index])
        });
        order.into_iter().map(|(_, shard)| shard).collect()
    }

    /// Documents that topics may start from: those of enough tokens, or all where there is none, since topics without documents
    /// would start equal and stay so.
    fn start_documents(&self) -> Vec<(&Shard, usize)> {
        let shards = self.corpus.shards.iter();
        let all = shards.flat_map(|shard| (0..shard.keys.len()).map(move |index| (shard, index)));
        let is_long =
            |(shard, index): &(&Shard, usize)| tokens(shard.document(*index).1) >= START_TOKENS;
        let long: Vec<_> = all.clone().filter(is_long).collect();
        if long.is_empty() { all.collect() } else { long }
    }

    /// Each topic half of the background, half of the square roots of counts of some documents.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "shares of the tokens; rank below the documents"
    )]
    fn document_start<const KP: usize>(&self, topics: usize) -> Vec<[f64; KP]> {
        let mut background = vec![0.0; self.corpus.vocabulary()];
        for shard in &self.corpus.shards {
            for (&word, &count) in shard.words.iter().zip(&shard.counts) {
                background[shard.dictionary[word as usize] as usize] += f64::from(count);
            }
        }
        let documents = self.start_documents();
        let mut rows = self.zero::<KP>();
        let share = 1.0 / topics as f64;
        for topic in 0..topics {
            let mut sample = vec![0.0; self.corpus.vocabulary()];
            for draw in 0..START_DOCUMENTS.min(documents.len()) {
                let key = [USE_DOCUMENTS, topic as u64, draw as u64];
                let (shard, index) = documents
                    [(rng::bits(self.params.seed, &key) % documents.len() as u64) as usize];
                let (words, counts) = shard.document(index);
                for (&word, &count) in words.iter().zip(counts) {
                    sample[shard.dictionary[word as usize] as usize] += f64::from(count.sqrt());
                }
            }
            let total: f64 = sample.iter().sum::<f64>().max(1e-30);
            let tokens = self.corpus.tokens() as f64;
            for ((row, sample), background) in rows.iter_mut().zip(&sample).zip(&background) {
                row[topic] = share * (0.5 * background + 0.5 * tokens * sample / total);
            }
        }
        rows
    }
}

/// K uniforms for each pair, normalised, times its count.
fn random_start<const KP: usize>(
    shard: &Shard,
    topics: usize,
    seed: u64,
) -> (Part<KP>, Vec<Row<KP>>) {
    let mut rows = vec![[0.0; KP]; shard.dictionary.len()];
    let mut mixtures = vec![[0.0; KP]; shard.keys.len()];
    for (index, &key) in shard.keys.iter().enumerate() {
        let (words, counts) = shard.document(index);
        for (&word, &count) in words.iter().zip(counts) {
            let id = u64::from(shard.dictionary[word as usize]);
            let mut draws = [0.0; KP];
            for (topic, draw) in (0_u64..).zip(&mut draws[..topics]) {
                *draw = rng::unit(seed, &[USE_START, key, id, topic]);
            }
            let scale = count / draws.iter().sum::<f32>();
            let targets = rows[word as usize].iter_mut().zip(&mut mixtures[index]);
            for ((row, mixture), draw) in targets.zip(&draws) {
                *row += draw * scale;
                *mixture += draw * scale;
            }
        }
    }
    let part = Part {
        rows,
        log_likelihood: 0.0,
    };
    (part, mixtures)
}

/// Work of `em_shard`, compiled for the processor at hand: all of it is inlined into `with_simd`, which has AVX2 where there is.
struct EmShard<'a, const KP: usize> {
    shard: &'a Shard,
    phi: &'a [Row<KP>],
    prior: (usize, f32),
    mixtures: &'a [Row<KP>],
}

impl<const KP: usize> pulp::WithSimd for EmShard<'_, KP> {
    type Output = (Part<KP>, Vec<Row<KP>>);

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
        em_shard(self.shard, self.phi, self.prior, self.mixtures)
    }
}

/// Work of `fold_in_shard`, likewise.
struct FoldInShard<'a, const KP: usize> {
    shard: &'a Shard,
    phi: &'a [Row<KP>],
    prior: (usize, f32),
}

impl<const KP: usize> pulp::WithSimd for FoldInShard<'_, KP> {
    type Output = Part<KP>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Part<KP> {
        fold_in_shard(self.shard, self.phi, self.prior)
    }
}

/// One sweep of each document from its mixture of the last iteration; returns the new mixtures too.
#[inline(always)]
fn em_shard<const KP: usize>(
    shard: &Shard,
    phi: &[Row<KP>],
    (topics, a): (usize, f32),
    mixtures: &[Row<KP>],
) -> (Part<KP>, Vec<Row<KP>>) {
    let mut rows = vec![[0.0; KP]; phi.len()];
    let mut updated = mixtures.to_vec();
    let mut log_likelihood = 0.0;
    for (index, mixture) in updated.iter_mut().enumerate() {
        let mut t = *mixture;
        t[..topics].iter_mut().for_each(|weight| *weight += a);
        let document = shard.document(index);
        let (acc, log) = kernel::sweep_and_scatter(phi, document, &t, &mut rows);
        log_likelihood += log - tokens(document.1) * f64::from(t.iter().sum::<f32>()).ln();
        for ((mixture, t), acc) in mixture.iter_mut().zip(&t).zip(&acc) {
            *mixture = t * acc;
        }
    }
    (finish(rows, phi, log_likelihood), updated)
}

/// Each document folded in from a flat start.
#[inline(always)]
fn fold_in_shard<const KP: usize>(shard: &Shard, phi: &[Row<KP>], prior: (usize, f32)) -> Part<KP> {
    let mut rows = vec![[0.0; KP]; phi.len()];
    let mut log_likelihood = 0.0;
    for index in 0..shard.keys.len() {
        let document = shard.document(index);
        let t = kernel::fold_in(phi, document, prior, (SWEEPS_MAX, SWEEP_TOLERANCE));
        let (_, log) = kernel::sweep_and_scatter(phi, document, &t, &mut rows);
        log_likelihood += log - tokens(document.1) * f64::from(t.iter().sum::<f32>()).ln();
    }
    finish(rows, phi, log_likelihood)
}

fn tokens(counts: &[f32]) -> f64 {
    counts.iter().map(|&count| f64::from(count)).sum()
}

/// φ·R, once a row.
#[inline(always)]
fn finish<const KP: usize>(
    mut rows: Vec<Row<KP>>,
    phi: &[Row<KP>],
    log_likelihood: f64,
) -> Part<KP> {
    for (row, phi) in rows.iter_mut().zip(phi) {
        row.iter_mut().zip(phi).for_each(|(sum, phi)| *sum *= phi);
    }
    Part {
        rows,
        log_likelihood,
    }
}
