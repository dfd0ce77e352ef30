//! A fitted model: expected counts, word probabilities, topic mixes of documents, perplexity.

use std::num::NonZeroUsize;

use crate::ml::lda::Corpus;
use crate::ml::lda::Topics;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::elsewhere::cells_of;
use crate::ml::lda::kernel;
use crate::ml::lda::kernel::Row;
use crate::ml::lda::simd::Lanes;
use crate::ml::lda::simd::WIDTH;
use crate::ml::lda::simd::Work;
use crate::ml::lda::simd::dispatch;
use crate::ml::lda::simd::with_vectors;
use crate::parallel;

/// Topics of a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct LdaModel {
    topics: usize,
    word_pseudo_count: f64,
    /// S, words × topics, row-major.
    counts: Vec<f64>,
}

/// How the topic mix of a document is found under fixed topics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureParams {
    /// a, the pseudo-count of each topic.
    pub document_pseudo_count: f32,
    /// At most so many sweeps.
    pub sweeps_max: u32,
    /// Stops when the mix moves less than this share.
    pub tolerance: f32,
}

impl LdaModel {
    /// Makes a model of expected counts: `counts` is S, words × topics, row-major; `word_pseudo_count` is b.
    #[must_use]
    pub fn new(topics: usize, word_pseudo_count: f64, counts: Vec<f64>) -> Self {
        Self {
            topics,
            word_pseudo_count,
            counts,
        }
    }

    /// Returns K.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics
    }

    /// Returns S, the expected counts, words × topics, row-major; all of them add up to the tokens of the corpus.
    #[must_use]
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// Returns S_k, the expected counts of each topic.
    #[must_use]
    pub fn topic_counts(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.topics];
        for row in self.counts.chunks_exact(self.topics) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, count)| *sum += count);
        }
        sums
    }

    /// Returns P(word | topic) as Spark and Spot have it, S_wk / S_k without the prior; words × topics, row-major. A topic without
    /// counts has 0 everywhere.
    #[must_use]
    pub fn word_probabilities(&self) -> Vec<f64> {
        let sums = self.topic_counts();
        let divide = |(count, sum): (&f64, &f64)| if *sum > 0.0 { count / sum } else { 0.0 };
        let rows = self.counts.chunks_exact(self.topics);
        rows.flat_map(|row| row.iter().zip(&sums).map(divide))
            .collect()
    }

    /// Returns smoothed φ rows of the words in `dictionary`; `sums` is S_k.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the kernel works in f32"
    )]
    pub(super) fn phi<const N: usize>(&self, dictionary: &[u32], sums: &[f64]) -> Vec<Row<N>> {
        let words = (self.counts.len() / self.topics) as f64;
        let b = self.word_pseudo_count;
        let rows = dictionary.iter().map(|&word| {
            let start = word as usize * self.topics;
            let mut row = [[0.0; WIDTH]; N];
            let counts = &self.counts[start..start + self.topics];
            for ((lane, count), sum) in row.as_flattened_mut().iter_mut().zip(counts).zip(sums) {
                *lane = ((count + b) / (sum + words * b)) as f32;
            }
            row
        });
        rows.collect()
    }

    /// Returns smoothed φ of all words.
    pub(super) fn table(&self) -> Topics {
        let sums = self.topic_counts();
        with_vectors!(self.topics, N => self.table_of(|words| self.phi::<N>(words, &sums)))
    }

    /// Returns φ of all words without the prior.
    pub(super) fn plain_table(&self) -> Topics {
        let sums = self.topic_counts();
        with_vectors!(self.topics, N => self.table_of(|words| self.plain_phi::<N>(words, &sums)))
    }

    fn table_of<const N: usize>(&self, phi: impl Fn(&[u32]) -> Vec<Row<N>>) -> Topics {
        let words: Vec<u32> = (0..).take(self.counts.len() / self.topics).collect();
        let rows = phi(&words);
        Topics::new(self.topics, words, cells_of(&[rows], self.topics))
    }

    /// Returns φ rows without the prior; 0 in a topic without counts.
    #[expect(clippy::cast_possible_truncation, reason = "the kernel works in f32")]
    pub(super) fn plain_phi<const N: usize>(
        &self,
        dictionary: &[u32],
        sums: &[f64],
    ) -> Vec<Row<N>> {
        let rows = dictionary.iter().map(|&word| {
            let counts = &self.counts[word as usize * self.topics..][..self.topics];
            let mut row = [[0.0; WIDTH]; N];
            for ((lane, count), sum) in row.as_flattened_mut().iter_mut().zip(counts).zip(sums) {
                *lane = if *sum > 0.0 {
                    (count / sum) as f32
                } else {
                    0.0
                };
            }
            row
        });
        rows.collect()
    }

    /// Returns exp(−Σ m ln(φ·θ) / Σ m) by document completion (Wallach, Murray, Salakhutdinov, Mimno, ICML 2009): θ is folded in on
    /// `observed`, the likelihood is that of `held`. Documents that are only in one of the two count nowhere.
    #[must_use]
    pub fn perplexity(
        &self,
        observed: &Corpus,
        held: &Corpus,
        params: &MixtureParams,
        threads: NonZeroUsize,
    ) -> f64 {
        let sums = self.topic_counts();
        let parts = parallel::map(
            threads,
            &observed.shards(),
            |shard| with_vectors!(self.topics, N => self.shard_likelihood::<N>(shard, held, &sums, params)),
        );
        let (log_likelihood, tokens) = parts
            .iter()
            .fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        (-log_likelihood / f64::max(tokens, 1.0)).exp()
    }

    /// Returns Σ m ln(φ·θ) and Σ m.
    fn shard_likelihood<const N: usize>(
        &self,
        observed: &Shard<'_>,
        held: &Corpus,
        sums: &[f64],
        params: &MixtureParams,
    ) -> (f64, f64) {
        let phi: Vec<Row<N>> = self.phi(observed.dictionary, sums);
        let mut total = (0.0, 0.0);
        for (index, &key) in observed.keys.iter().enumerate() {
            let Some((shard, other)) = held.find(key) else {
                continue;
            };
            let (words, counts) = shard.document(other);
            let ids: Vec<u32> = words
                .iter()
                .map(|&word| shard.dictionary[word as usize])
                .collect();
            total.0 += dispatch(Completion {
                phi: &phi,
                observed: observed.document(index),
                rows: &self.phi::<N>(&ids, sums),
                held: counts,
                topics: self.topics,
                params,
            });
            total.1 += counts.iter().map(|&count| f64::from(count)).sum::<f64>();
        }
        total
    }
}

/// Σ m ln(φ·θ) of one document's held half.
struct Completion<'a, const N: usize> {
    phi: &'a [Row<N>],
    observed: (&'a [u32], &'a [f32]),
    /// φ of each word of the held half, and its count.
    rows: &'a [Row<N>],
    held: &'a [f32],
    topics: usize,
    params: &'a MixtureParams,
}

impl<const N: usize> Work for Completion<'_, N> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) -> f64 {
        let prior = (self.topics, self.params.document_pseudo_count);
        let stop = (self.params.sweeps_max, self.params.tolerance);
        let g = kernel::fold_in(simd, self.phi, self.observed, prior, stop);
        let norm = kernel::total(simd, &g);
        let mut log_likelihood = 0.0;
        for (row, &count) in self.rows.iter().zip(self.held) {
            let p = f64::from(kernel::dot(simd, row, &g)) / f64::from(norm);
            log_likelihood += f64::from(count) * p.max(1e-300).ln();
        }
        log_likelihood
    }
}
