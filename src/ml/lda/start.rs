//! Topics to start from, made of documents: each is half background, half the square roots of the counts of some documents.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

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

/// A document: its shard and its place there.
type Place<'a> = (Shard<'a>, usize);

/// Returns for each topic the documents that it starts from, drawn from those of enough tokens, or from all where there is none, since
/// topics without documents would start equal and stay so. The candidates are gone through twice, and kept nowhere.
fn samples(corpus: &Corpus, topics: usize, seed: u64) -> Vec<Vec<Place<'_>>> {
    let shards = corpus.shards();
    let all = || {
        let shards = shards.iter();
        shards.flat_map(|&shard| (0..shard.keys.len()).map(move |index| (shard, index)))
    };
    let is_long = |(shard, index): &Place<'_>| {
        let counts = shard.document(*index).1;
        counts.iter().sum::<f32>() >= START_TOKENS
    };
    let long = all().filter(is_long).count();
    let candidates = if long == 0 { all().count() } else { long };
    let draw = |topic: u64, draw: u64| {
        let number = rng::bits(seed, &[USE_DOCUMENTS, topic, draw]);
        usize::try_from(number % candidates as u64).unwrap_or(0)
    };
    let draws = START_DOCUMENTS.min(candidates);
    let drawn: Vec<Vec<usize>> = (0..topics as u64)
        .map(|topic| {
            (0..draws as u64)
                .map(|number| draw(topic, number))
                .collect()
        })
        .collect();
    let wanted: BTreeSet<usize> = drawn.iter().flatten().copied().collect();
    let places: BTreeMap<usize, Place<'_>> = all()
        .filter(|place| long == 0 || is_long(place))
        .enumerate()
        .filter(|(number, _)| wanted.contains(number))
        .collect();
    let of_topic = |numbers: &Vec<usize>| {
        let found = numbers.iter().map(|number| places.get(number).copied());
        found.flatten().collect()
    };
    drawn.iter().map(of_topic).collect()
}

/// Returns S of `topics` topics that add up to the tokens.
#[expect(clippy::cast_precision_loss, reason = "shares of the tokens")]
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
    for (topic, sample) in samples(corpus, topics, seed).into_iter().enumerate() {
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
