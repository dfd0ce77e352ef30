//! Scores of the pairs that a model was trained on.

use std::num::NonZeroUsize;

use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::EStep;
use crate::ml::lda::Fit;
use crate::ml::lda::LdaModel;
use crate::ml::lda::ScoreBy;
use crate::ml::lda::Workers;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::counts::Grain;
use crate::ml::lda::shard::FoldInShard;
use crate::ml::lda::shard::ScoreShard;
use crate::ml::lda::shard::TopicCounts;
use crate::ml::lda::shard::TopicsOf;
use crate::ml::lda::simd::dispatch;
use crate::ml::lda::simd::with_vectors;
use crate::parallel;

impl Fit {
    /// The same as [`Fit::over`], on workers.
    ///
    /// # Errors
    /// What the workers say.
    pub fn over_on<W: Workers>(
        &self,
        corpus: &Corpus,
        params: &CheckedLdaParams,
        workers: &W,
    ) -> Result<Self, W::Error> {
        let params = params.get();
        let shards: Vec<u32> = (0..).take(corpus.shards().len()).collect();
        let step = EStep {
            document_pseudo_count: params.document_pseudo_count,
            weight: 1.0,
            tokens: corpus.tokens(),
        };
        let cells = workers.e_step(&shards, &self.model.table(), step)?.cells;
        let b = f64::from(params.word_pseudo_count);
        Ok(Self {
            model: LdaModel::new(self.model.topics(), b, cells),
            mixtures: None,
        })
    }

    /// Returns the topics after one batch epoch over another corpus of the same words, and forgets the mixes.
    #[must_use]
    pub fn over(&self, corpus: &Corpus, params: &CheckedLdaParams, threads: NonZeroUsize) -> Self {
        with_vectors!(self.model.topics(), N => self.over_of::<N>(corpus, params, threads))
    }

    fn over_of<const N: usize>(
        &self,
        corpus: &Corpus,
        params: &CheckedLdaParams,
        threads: NonZeroUsize,
    ) -> Self {
        let topics = self.model.topics();
        let sums = self.model.topic_counts();
        let mut counts = vec![0.0; self.model.counts().len()];
        let grain = Grain::of(corpus.tokens());
        for wave in corpus.shards().chunks(threads.get() * 2) {
            let parts = parallel::map(threads, wave, |&shard| {
                dispatch(FoldInShard::<N> {
                    shard,
                    topics_of: TopicsOf::Model(&self.model, &sums),
                    prior: (topics, params.get().document_pseudo_count),
                })
            });
            for (part, shard) in parts.iter().zip(wave) {
                for (row, &word) in part.rows.iter().zip(shard.dictionary) {
                    let cells = counts[word as usize * topics..].iter_mut();
                    cells
                        .zip(&row.as_flattened()[..topics])
                        .for_each(|(cell, value)| *cell += grain.round(f64::from(*value)));
                }
            }
        }
        Self {
            model: LdaModel::new(topics, f64::from(params.get().word_pseudo_count), counts),
            mixtures: None,
        }
    }

    /// Returns the topic mix θ of a document of `corpus`, folded in; `None` for a key that it does not have.
    /// `topic_counts` is [`LdaModel::topic_counts`], made once.
    #[must_use]
    pub fn topic_mix(
        &self,
        corpus: &Corpus,
        key: u64,
        params: &CheckedLdaParams,
        topic_counts: &[f64],
    ) -> Option<Vec<f64>> {
        let (shard, index) = corpus.find(key)?;
        let (words, counts) = shard.document(index);
        let ids: Vec<u32> = words
            .iter()
            .map(|&word| shard.dictionary[word as usize])
            .collect();
        let local: Vec<u32> = (0..).take(ids.len()).collect();
        let prior = (self.model.topics(), params.get().document_pseudo_count);
        let counts: Vec<f32> = with_vectors!(prior.0, N => {
            let row = dispatch(TopicCounts::<N> {
                phi: &self.model.phi(&ids, topic_counts),
                document: (&local, counts),
                prior,
            });
            row.as_flattened()[..prior.0].to_vec()
        });
        let mix = counts.iter().map(|&count| f64::from(count));
        let total = mix.clone().sum::<f64>().max(1e-30);
        Some(mix.map(|weight| weight / total).collect())
    }

    /// Calls `sink` with p(word | document) of each pair of `corpus`, in the order of [`Corpus::pairs`]. `em` uses the mixes of its
    /// last iteration where `corpus` is what it was fitted to; else documents are folded in.
    pub fn scores(
        &self,
        corpus: &Corpus,
        params: &CheckedLdaParams,
        threads: NonZeroUsize,
        sink: impl FnMut(f32),
    ) {
        with_vectors!(self.model.topics(), N => self.scores_of::<N>(corpus, params, threads, sink));
    }

    /// The same on workers that have the corpus, bit for bit, for a fit without mixes of its own.
    ///
    /// # Errors
    /// What the workers say.
    pub fn scores_on<W: Workers>(
        &self,
        params: &CheckedLdaParams,
        workers: &W,
        mut sink: impl FnMut(f32),
    ) -> Result<(), W::Error> {
        let by = ScoreBy {
            smooth: self.model.table(),
            plain: self.model.plain_table(),
            document_pseudo_count: params.get().document_pseudo_count,
        };
        workers.scores(&by, &mut sink)
    }

    fn scores_of<const N: usize>(
        &self,
        corpus: &Corpus,
        params: &CheckedLdaParams,
        threads: NonZeroUsize,
        mut sink: impl FnMut(f32),
    ) {
        let prior = (self.model.topics(), params.get().document_pseudo_count);
        let sums = self.model.topic_counts();
        let mixtures = |index: usize| {
            let kept = self.mixtures.as_ref()?.get(index)?;
            let documents = corpus.shard(index).keys.len();
            (kept.len() == documents * prior.0).then_some(kept.as_slice())
        };
        let shards: Vec<(usize, Shard<'_>)> = corpus.shards().into_iter().enumerate().collect();
        for wave in shards.chunks(threads.get() * 2) {
            let scores = parallel::map(threads, wave, |&(index, shard)| {
                dispatch(ScoreShard::<N> {
                    shard,
                    phi: &self.model.phi(shard.dictionary, &sums),
                    plain: &self.model.plain_phi(shard.dictionary, &sums),
                    prior,
                    mixtures: mixtures(index),
                })
            });
            scores.into_iter().flatten().for_each(&mut sink);
        }
    }
}
