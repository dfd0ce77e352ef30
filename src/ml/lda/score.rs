//! Scores of the pairs that a model was trained on.

use std::num::NonZeroUsize;

use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::Fit;
use crate::ml::lda::LdaModel;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::fit::exact;
use crate::ml::lda::kernel;
use crate::ml::lda::kernel::Row;
use crate::ml::lda::model::LANES;
use crate::ml::lda::shard::FoldInShard;
use crate::ml::lda::shard::SCORE_SWEEPS_MAX;
use crate::ml::lda::shard::SCORE_TOLERANCE;
use crate::ml::lda::shard::ScoreShard;
use crate::ml::lda::shard::TopicsOf;
use crate::parallel;

impl Fit {
    /// Returns the topics after one batch epoch over another corpus of the same words, and forgets the mixes.
    #[must_use]
    pub fn over(&self, corpus: &Corpus, params: &CheckedLdaParams, threads: NonZeroUsize) -> Self {
        match self.model.topics().div_ceil(8) * 8 {
            8 => self.over_of::<8>(corpus, params, threads),
            16 => self.over_of::<16>(corpus, params, threads),
            24 => self.over_of::<24>(corpus, params, threads),
            32 => self.over_of::<32>(corpus, params, threads),
            40 => self.over_of::<40>(corpus, params, threads),
            48 => self.over_of::<48>(corpus, params, threads),
            _ => self.over_of::<56>(corpus, params, threads),
        }
    }

    fn over_of<const KP: usize>(
        &self,
        corpus: &Corpus,
        params: &CheckedLdaParams,
        threads: NonZeroUsize,
    ) -> Self {
        let topics = self.model.topics();
        let sums = self.model.topic_counts();
        let arch = pulp::Arch::new();
        let mut counts = vec![0.0; self.model.counts().len()];
        for wave in corpus.shards.chunks(threads.get() * 2) {
            let parts = parallel::map(threads, wave, |shard| {
                arch.dispatch(FoldInShard::<KP> {
                    shard,
                    topics_of: TopicsOf::Model(&self.model, &sums),
                    prior: (topics, params.get().document_pseudo_count),
                })
            });
            for (part, shard) in parts.iter().zip(wave) {
                for (row, &word) in part.rows.iter().zip(&shard.dictionary) {
                    let cells = counts[word as usize * topics..].iter_mut();
                    cells
                        .zip(&row[..topics])
                        .for_each(|(cell, value)| *cell += exact(f64::from(*value)));
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
        let phi: Vec<Row<LANES>> = self.model.phi(&ids, topic_counts);
        let local: Vec<u32> = (0..).take(ids.len()).collect();
        let a = params.get().document_pseudo_count;
        let stop = (SCORE_SWEEPS_MAX, SCORE_TOLERANCE);
        let g = kernel::fold_in(&phi, (&local, counts), (self.model.topics(), a), stop);
        let mix = g
            .iter()
            .take(self.model.topics())
            .map(|weight| f64::from((weight - a).max(0.0)));
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
        match self.model.topics().div_ceil(8) * 8 {
            8 => self.scores_of::<8>(corpus, params, threads, sink),
            16 => self.scores_of::<16>(corpus, params, threads, sink),
            24 => self.scores_of::<24>(corpus, params, threads, sink),
            32 => self.scores_of::<32>(corpus, params, threads, sink),
            40 => self.scores_of::<40>(corpus, params, threads, sink),
            48 => self.scores_of::<48>(corpus, params, threads, sink),
            _ => self.scores_of::<56>(corpus, params, threads, sink),
        }
    }

    fn scores_of<const KP: usize>(
        &self,
        corpus: &Corpus,
        params: &CheckedLdaParams,
        threads: NonZeroUsize,
        mut sink: impl FnMut(f32),
    ) {
        let prior = (self.model.topics(), params.get().document_pseudo_count);
        let sums = self.model.topic_counts();
        let arch = pulp::Arch::new();
        let mixtures = |index: usize| {
            let kept = self.mixtures.as_ref()?.get(index)?;
            let documents = corpus.shards[index].keys.len();
            (kept.len() == documents * prior.0).then_some(kept.as_slice())
        };
        let shards: Vec<(usize, &Shard)> = corpus.shards.iter().enumerate().collect();
        for wave in shards.chunks(threads.get() * 2) {
            let scores = parallel::map(threads, wave, |&(index, shard)| {
                arch.dispatch(ScoreShard::<KP> {
                    shard,
                    phi: &self.model.phi(&shard.dictionary, &sums),
                    plain: &self.model.plain_phi(&shard.dictionary, &sums),
                    prior,
                    mixtures: mixtures(index),
                })
            });
            scores.into_iter().flatten().for_each(&mut sink);
        }
    }
}
