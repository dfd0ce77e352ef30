//! What one shard adds to S, and the scores of its pairs.

use crate::ml::lda::LdaModel;
use crate::ml::lda::Topics;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::counts::Counts;
use crate::ml::lda::kernel;
use crate::ml::lda::kernel::Row;
use crate::ml::lda::simd::Lanes;
use crate::ml::lda::simd::WIDTH;
use crate::ml::lda::simd::Work;
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
pub(super) struct Part<const N: usize> {
    pub(super) rows: Vec<Row<N>>,
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
fn add_document<S: Lanes, const N: usize>(
    simd: S,
    likelihood: &mut Likelihood,
    (log, tokens): (f64, f64),
    t: &Row<N>,
    (topics, a): (usize, f32),
) {
    let norm = f64::from(kernel::ln(kernel::total(simd, t)));
    let logs = kernel::sum_of_logs(t, topics);
    likelihood.data += log - tokens * norm;
    #[expect(clippy::cast_precision_loss, reason = "at most 64 topics")]
    let norms = topics as f64 * norm;
    likelihood.documents += f64::from(a) * (logs - norms);
}

/// Half of each pair's count goes to a random topic, half to all topics evenly. Spark draws K uniforms for each pair: after the
/// same 20 iterations that start is less far (perplexity 358–363 over four seeds against 331–341 over five on the corpus of
/// `scripts/bench`), since topics that start nearly equal part slowly.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "at most 56 topics"
)]
pub(super) fn random_start<const N: usize>(
    shard: &Shard<'_>,
    topics: usize,
    seed: u64,
) -> (Part<N>, Vec<Row<N>>) {
    let mut rows = vec![[[0.0; WIDTH]; N]; shard.dictionary.len()];
    let mut mixtures = vec![[[0.0; WIDTH]; N]; shard.keys.len()];
    for (index, &key) in shard.keys.iter().enumerate() {
        let (words, counts) = shard.document(index);
        let mixture = mixtures[index].as_flattened_mut();
        for (&word, &count) in words.iter().zip(counts) {
            let id = u64::from(shard.dictionary[word as usize]);
            let topic = (rng::bits(seed, &[USE_START, key, id]) % topics as u64) as usize;
            let even = 0.5 * count / topics as f32;
            for counts in [rows[word as usize].as_flattened_mut(), &mut *mixture] {
                counts[..topics].iter_mut().for_each(|cell| *cell += even);
                counts[topic] += 0.5 * count;
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
pub(super) enum TopicsOf<'a, const N: usize> {
    /// Counts of a fit under way, and b.
    Counts(&'a Counts<N>, f32),
    /// A model and S_k.
    Model(&'a LdaModel, &'a [f64]),
    /// φ itself, and which of its rows are those of the dictionary.
    Table(&'a Topics, &'a [u32]),
}

impl<const N: usize> TopicsOf<'_, N> {
    #[inline(always)]
    fn phi(&self, dictionary: &[u32], topics: usize) -> Vec<Row<N>> {
        match self {
            Self::Counts(counts, b) => counts.phi(dictionary, topics, *b),
            Self::Model(model, sums) => model.phi(dictionary, sums),
            Self::Table(topics, rows) => topics.phi(rows),
        }
    }
}

/// Work of `em_shard`.
pub(super) struct EmShard<'a, const N: usize> {
    pub(super) shard: Shard<'a>,
    pub(super) topics_of: TopicsOf<'a, N>,
    pub(super) prior: (usize, f32),
    pub(super) mixtures: &'a [Row<N>],
}

impl<const N: usize> Work for EmShard<'_, N> {
    type Output = (Part<N>, Vec<Row<N>>);

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) -> Self::Output {
        let phi = self.topics_of.phi(self.shard.dictionary, self.prior.0);
        em_shard(simd, &self.shard, &phi, self.prior, self.mixtures)
    }
}

/// Work of `fold_in_shard`, likewise.
pub(super) struct FoldInShard<'a, const N: usize> {
    pub(super) shard: Shard<'a>,
    pub(super) topics_of: TopicsOf<'a, N>,
    pub(super) prior: (usize, f32),
}

impl<const N: usize> Work for FoldInShard<'_, N> {
    type Output = Part<N>;

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) -> Part<N> {
        let phi = self.topics_of.phi(self.shard.dictionary, self.prior.0);
        fold_in_shard(simd, &self.shard, &phi, self.prior)
    }
}

/// Σ ln φ of some words, with the prior.
pub(super) struct LogPrior<'a, const N: usize> {
    pub(super) counts: &'a Counts<N>,
    pub(super) words: &'a [u32],
    /// Topics and b.
    pub(super) prior: (usize, f32),
}

impl<const N: usize> Work for LogPrior<'_, N> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Lanes>(self, _: S) -> f64 {
        let (topics, b) = self.prior;
        let mut total = 0.0;
        for row in self.counts.phi(self.words, topics, b) {
            total += kernel::sum_of_logs(&row, topics);
        }
        total
    }
}

/// One sweep of each document from its mixture of the last iteration; returns the new mixtures too.
#[inline(always)]
fn em_shard<S: Lanes, const N: usize>(
    simd: S,
    shard: &Shard<'_>,
    phi: &[Row<N>],
    (topics, a): (usize, f32),
    mixtures: &[Row<N>],
) -> (Part<N>, Vec<Row<N>>) {
    let mut rows = vec![[[0.0; WIDTH]; N]; phi.len()];
    let mut updated = mixtures.to_vec();
    let mut likelihood = Likelihood::default();
    for (index, mixture) in updated.iter_mut().enumerate() {
        let mut t = *mixture;
        let used = t.as_flattened_mut()[..topics].iter_mut();
        used.for_each(|weight| *weight += a);
        let document = shard.document(index);
        let (counts, log) = kernel::sweep_and_scatter(simd, phi, document, &t, &mut rows);
        let tokens = tokens(document.1);
        add_document(simd, &mut likelihood, (log, tokens), &t, (topics, a));
        *mixture = counts;
    }
    (finish(rows, phi, likelihood), updated)
}

/// Each document folded in from a flat start.
#[inline(always)]
fn fold_in_shard<S: Lanes, const N: usize>(
    simd: S,
    shard: &Shard<'_>,
    phi: &[Row<N>],
    prior: (usize, f32),
) -> Part<N> {
    let mut rows = vec![[[0.0; WIDTH]; N]; phi.len()];
    let mut likelihood = Likelihood::default();
    for index in 0..shard.keys.len() {
        let document = shard.document(index);
        let t = kernel::fold_in(simd, phi, document, prior, (SWEEPS_MAX, SWEEP_TOLERANCE));
        let (_, log) = kernel::sweep_and_scatter(simd, phi, document, &t, &mut rows);
        add_document(simd, &mut likelihood, (log, tokens(document.1)), &t, prior);
    }
    finish(rows, phi, likelihood)
}

fn tokens(counts: &[f32]) -> f64 {
    counts.iter().map(|&count| f64::from(count)).sum()
}

/// φ·R, once a row.
#[inline(always)]
fn finish<const N: usize>(
    mut rows: Vec<Row<N>>,
    phi: &[Row<N>],
    likelihood: Likelihood,
) -> Part<N> {
    let sums = rows.as_flattened_mut().as_flattened_mut();
    for (sum, phi) in sums.iter_mut().zip(phi.as_flattened().as_flattened()) {
        *sum *= phi;
    }
    Part { rows, likelihood }
}

/// Scores each pair of a shard: p = θ·φ with θ = N_j / Σ N_j and φ = S_w / S, neither with its prior, as Spark and Spot have it.
pub(super) struct ScoreShard<'a, const N: usize> {
    pub(super) shard: Shard<'a>,
    /// Smoothed φ: what mixes are found under.
    pub(super) phi: &'a [Row<N>],
    /// φ without prior.
    pub(super) plain: &'a [Row<N>],
    pub(super) prior: (usize, f32),
    /// N_j, documents × topics, where the fit kept them.
    pub(super) mixtures: Option<&'a [f32]>,
}

impl<const N: usize> Work for ScoreShard<'_, N> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) -> Vec<f32> {
        let (topics, a) = self.prior;
        let mut scores = Vec::with_capacity(self.shard.words.len());
        for index in 0..self.shard.keys.len() {
            let document = self.shard.document(index);
            let mut mix = match self.mixtures {
                Some(mixtures) => {
                    let mut mix = [[0.0; WIDTH]; N];
                    mix.as_flattened_mut()[..topics]
                        .copy_from_slice(&mixtures[index * topics..][..topics]);
                    mix
                }
                None => topic_counts(simd, self.phi, document, (topics, a)),
            };
            let scale = 1.0 / kernel::total(simd, &mix).max(1e-30);
            let weights = mix.as_flattened_mut().iter_mut();
            weights.for_each(|weight| *weight *= scale);
            for &word in document.0 {
                scores.push(kernel::dot(simd, &self.plain[word as usize], &mix));
            }
        }
        scores
    }
}

/// N_j of a document that is folded in.
#[inline(always)]
fn topic_counts<S: Lanes, const N: usize>(
    simd: S,
    phi: &[Row<N>],
    document: (&[u32], &[f32]),
    (topics, a): (usize, f32),
) -> Row<N> {
    let stop = (SCORE_SWEEPS_MAX, SCORE_TOLERANCE);
    let mut mix = kernel::fold_in(simd, phi, document, (topics, a), stop);
    let used = mix.as_flattened_mut()[..topics].iter_mut();
    used.for_each(|weight| *weight = (*weight - a).max(0.0));
    mix
}

/// N_j of one document that is folded in under rows of its own words.
pub(super) struct TopicCounts<'a, const N: usize> {
    pub(super) phi: &'a [Row<N>],
    pub(super) document: (&'a [u32], &'a [f32]),
    pub(super) prior: (usize, f32),
}

impl<const N: usize> Work for TopicCounts<'_, N> {
    type Output = Row<N>;

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) -> Row<N> {
        topic_counts(simd, self.phi, self.document, self.prior)
    }
}
