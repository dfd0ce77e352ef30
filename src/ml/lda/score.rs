//! Scores of the pairs that a model was trained on.

use std::num::NonZeroUsize;

use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::Fit;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::shard::ScoreShard;
use crate::parallel;

impl Fit {
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
