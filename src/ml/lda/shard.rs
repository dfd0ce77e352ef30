//! What one shard adds to S, compiled for the processor at hand.

use crate::ml::lda::LdaModel;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::fit::Counts;
use crate::ml::lda::kernel;
use crate::ml::lda::kernel::Row;
use crate::ml::rng;

/// A use of random numbers.
const USE_START: u64 = 1;
/// Sweeps of a document under fixed topics; fewer cost quality (perplexity 334–350 with 4 against 309–314).
const SWEEPS_MAX: u32 = 10;
const SWEEP_TOLERANCE: f32 = 0.01;
/// The same when documents are scored.
pub(super) const SCORE_SWEEPS_MAX: u32 = 30;
pub(super) const SCORE_TOLERANCE: f32 = 1e-3;

/// What a shard adds to S, for the words of its dictionary.
pub(super) struct Part<const KP: usize> {
    pub(super) rows: Vec<Row<KP>>,
    pub(super) likelihood: Likelihood,
}

/// Logarithms of what is maximised.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Likelihood {
    /// Σ n ln(φ·θ).
    pub(super) data: f64,
    /// a Σ ln θ.
    pub(super) documents: f64,
}

impl std::ops::AddAssign for Likelihood {
    fn add_assign(&mut self, other: Self) {
        self.data += other.data;
        self.documents += other.documents;
    }
}

/// Adds a document's part: `log` is Σ n ln(φ·t), t = θ · Σ t.
#[inline(always)]
fn add_document<const KP: usize>(
    likelihood: &mut Likelihood,
    (log, tokens): (f64, f64),
    t: &Row<KP>,
    (topics, a): (usize, f32),
) {
    let norm = f64::from(kernel::ln(t.iter().sum::<f32>()));
    let mut logs = 0.0;
    for weight in &t[..topics] {
        logs += kernel::ln(*weight);
    }
    likelihood.data += log - tokens * norm;
    #[expect(clippy::cast_precision_loss, reason = "at most 64 topics")]
    let norms = topics as f64 * norm;
    likelihood.documents += f64::from(a) * (f64::from(logs) - norms);
}

/// K uniforms for each pair, normalised, times its count.
pub(super) fn random_start<const KP: usize>(
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
            let units = rng::units(seed, &[USE_START, key, id]);
            draws[..topics]
                .iter_mut()
                .zip(units)
                .for_each(|(draw, unit)| *draw = unit);
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
        likelihood: Likelihood::default(),
    };
    (part, mixtures)
}

/// Where φ comes from.
pub(super) enum TopicsOf<'a, const KP: usize> {
    /// Counts of a fit under way, and b.
    Counts(&'a Counts<KP>, f32),
    /// A model and S_k.
    Model(&'a LdaModel, &'a [f64]),
}

impl<const KP: usize> TopicsOf<'_, KP> {
    #[inline(always)]
    fn phi(&self, dictionary: &[u32], topics: usize) -> Vec<Row<KP>> {
        match self {
            Self::Counts(counts, b) => counts.phi(dictionary, topics, *b),
            Self::Model(model, sums) => model.phi(dictionary, sums),
        }
    }
}

/// Work of `em_shard`, compiled for the processor at hand: all of it is inlined into `with_simd`, which has AVX2 where there is.
pub(super) struct EmShard<'a, const KP: usize> {
    pub(super) shard: &'a Shard,
    pub(super) topics_of: TopicsOf<'a, KP>,
    pub(super) prior: (usize, f32),
    pub(super) mixtures: &'a [Row<KP>],
}

impl<const KP: usize> pulp::WithSimd for EmShard<'_, KP> {
    type Output = (Part<KP>, Vec<Row<KP>>);

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
        let phi = self.topics_of.phi(&self.shard.dictionary, self.prior.0);
        em_shard(self.shard, &phi, self.prior, self.mixtures)
    }
}

/// Work of `fold_in_shard`, likewise.
pub(super) struct FoldInShard<'a, const KP: usize> {
    pub(super) shard: &'a Shard,
    pub(super) topics_of: TopicsOf<'a, KP>,
    pub(super) prior: (usize, f32),
}

impl<const KP: usize> pulp::WithSimd for FoldInShard<'_, KP> {
    type Output = Part<KP>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Part<KP> {
        let phi = self.topics_of.phi(&self.shard.dictionary, self.prior.0);
        fold_in_shard(self.shard, &phi, self.prior)
    }
}

/// Σ ln φ of some words, with the prior.
pub(super) struct LogPrior<'a, const KP: usize> {
    pub(super) counts: &'a Counts<KP>,
    pub(super) words: &'a [u32],
    /// Topics and b.
    pub(super) prior: (usize, f32),
}

impl<const KP: usize> pulp::WithSimd for LogPrior<'_, KP> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> f64 {
        let (topics, b) = self.prior;
        let mut total = 0.0;
        for row in self.counts.phi(self.words, topics, b) {
            let mut logs = [0.0_f32; KP];
            for (log, value) in logs.iter_mut().zip(&row) {
                *log = kernel::ln(*value);
            }
            total += f64::from(logs[..topics].iter().sum::<f32>());
        }
        total
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
    let mut likelihood = Likelihood::default();
    for (index, mixture) in updated.iter_mut().enumerate() {
        let mut t = *mixture;
        t[..topics].iter_mut().for_each(|weight| *weight += a);
        let document = shard.document(index);
        let (acc, log) = kernel::sweep_and_scatter(phi, document, &t, &mut rows);
        add_document(&mut likelihood, (log, tokens(document.1)), &t, (topics, a));
        for ((mixture, t), acc) in mixture.iter_mut().zip(&t).zip(&acc) {
            *mixture = t * acc;
        }
    }
    (finish(rows, phi, likelihood), updated)
}

/// Each document folded in from a flat start.
#[inline(always)]
fn fold_in_shard<const KP: usize>(shard: &Shard, phi: &[Row<KP>], prior: (usize, f32)) -> Part<KP> {
    let mut rows = vec![[0.0; KP]; phi.len()];
    let mut likelihood = Likelihood::default();
    for index in 0..shard.keys.len() {
        let document = shard.document(index);
        let t = kernel::fold_in(phi, document, prior, (SWEEPS_MAX, SWEEP_TOLERANCE));
        let (_, log) = kernel::sweep_and_scatter(phi, document, &t, &mut rows);
        add_document(&mut likelihood, (log, tokens(document.1)), &t, prior);
    }
    finish(rows, phi, likelihood)
}

fn tokens(counts: &[f32]) -> f64 {
    counts.iter().map(|&count| f64::from(count)).sum()
}

/// φ·R, once a row.
#[inline(always)]
fn finish<const KP: usize>(
    mut rows: Vec<Row<KP>>,
    phi: &[Row<KP>],
    likelihood: Likelihood,
) -> Part<KP> {
    for (row, phi) in rows.iter_mut().zip(phi) {
        row.iter_mut().zip(phi).for_each(|(sum, phi)| *sum *= phi);
    }
    Part { rows, likelihood }
}

/// Scores each pair of a shard: p = θ·φ with θ = N_j / Σ N_j and φ = S_w / S, neither with its prior, as Spark and Spot have it.
pub(super) struct ScoreShard<'a, const KP: usize> {
    pub(super) shard: &'a Shard,
    /// Smoothed φ: what mixes are found under.
    pub(super) phi: &'a [Row<KP>],
    /// φ without prior.
    pub(super) plain: &'a [Row<KP>],
    pub(super) prior: (usize, f32),
    /// N_j, documents × topics, where the fit kept them.
    pub(super) mixtures: Option<&'a [f32]>,
}

impl<const KP: usize> pulp::WithSimd for ScoreShard<'_, KP> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Vec<f32> {
        let (topics, a) = self.prior;
        let mut scores = Vec::with_capacity(self.shard.words.len());
        for index in 0..self.shard.keys.len() {
            let document = self.shard.document(index);
            let mut mix = [0.0; KP];
            match self.mixtures {
                Some(mixtures) => {
                    mix[..topics].copy_from_slice(&mixtures[index * topics..][..topics]);
                }
                None => {
                    let stop = (SCORE_SWEEPS_MAX, SCORE_TOLERANCE);
                    mix = kernel::fold_in(self.phi, document, self.prior, stop);
                    mix[..topics]
                        .iter_mut()
                        .for_each(|weight| *weight = (*weight - a).max(0.0));
                }
            }
            let total: f32 = mix.iter().sum();
            let scale = 1.0 / total.max(1e-30);
            mix.iter_mut().for_each(|weight| *weight *= scale);
            let words = document.0.iter();
            scores.extend(words.map(|&word| kernel::dot(&self.plain[word as usize], &mix)));
        }
        scores
    }
}
