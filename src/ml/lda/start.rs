//! Topics to start from, made of documents: each is half background, half the square roots of the counts of some documents.

use crate::ml::lda::Corpus;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::counts::Cells;
use crate::ml::lda::simd::WIDTH;
use crate::ml::rng;

/// A use of random numbers.
const USE_DOCUMENTS: u64 = 3;
/// Documents of which the start of one topic is made.
const START_DOCUMENTS: usize = 50;
/// Tokens that such a document has, where there are documents of so many.
const START_TOKENS: f32 = 20.0;

/// Documents that topics may start from: those of enough tokens, or all where there is none, since topics without documents
/// would start equal and stay so.
fn candidates(corpus: &Corpus) -> Vec<(Shard<'_>, usize)> {
    let shards = corpus.shards().into_iter();
    let all = shards.flat_map(|shard| (0..shard.keys.len()).map(move |index| (shard, index)));
    let is_long = |(shard, index): &(Shard<'_>, usize)| {
        let counts = shard.document(*index).1;
        counts.iter().sum::<f32>() >= START_TOKENS
    };
    let long: Vec<_> = all.clone().filter(is_long).collect();
    if long.is_empty() { all.collect() } else { long }
}

/// Returns S of `topics` topics that add up to the tokens.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "shares of the tokens; rank below the documents"
)]
pub(super) fn of_documents<const N: usize>(
    corpus: &Corpus,
    topics: usize,
    seed: u64,
) -> Vec<Cells<N>> {
    let share = 0.5 / topics as f64;
    let mut background = vec![0.0; corpus.vocabulary()];
    for shard in corpus.shards() {
        for (&word, &count) in shard.words.iter().zip(shard.counts) {
            background[shard.dictionary[word as usize] as usize] += f64::from(count);
        }
    }
    let with_background = |count: &f64| {
        let mut row = [[0.0; WIDTH]; N];
        row.as_flattened_mut()[..topics].fill(share * count);
        row
    };
    let mut rows: Vec<Cells<N>> = background.iter().map(with_background).collect();
    let documents = candidates(corpus);
    for (topic, number) in (0..topics).zip(0_u64..) {
        let draws = 0..START_DOCUMENTS.min(documents.len());
        let sample: Vec<_> = draws
            .map(|draw| {
                let key = [USE_DOCUMENTS, number, draw as u64];
                documents[(rng::bits(seed, &key) % documents.len() as u64) as usize]
            })
            .collect();
        let counts = sample
            .iter()
            .flat_map(|(shard, index)| shard.document(*index).1);
        let total: f64 = counts.map(|count| f64::from(count.sqrt())).sum();
        let weight = share * corpus.tokens() as f64 / total.max(1e-30);
        for (shard, index) in sample {
            let (words, counts) = shard.document(index);
            for (&word, &count) in words.iter().zip(counts) {
                let word = shard.dictionary[word as usize] as usize;
                rows[word].as_flattened_mut()[topic] += weight * f64::from(count.sqrt());
            }
        }
    }
    rows
}
