//! Documents in virtual shards.

use crate::ml::rng;

/// What a corpus cannot hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CorpusError {
    /// A word id outside the vocabulary.
    #[error("word {word} of document {document} is not below the vocabulary's {vocabulary}")]
    Word {
        /// The document's key.
        document: u64,
        /// The word's id.
        word: u32,
        /// Number of words.
        vocabulary: usize,
    },
    /// More tokens than exact sums allow.
    #[error("{tokens} tokens are more than the 4294967295 that can be summed exactly")]
    TooManyTokens {
        /// Sum of all counts.
        tokens: u64,
    },
}

/// Counts of words in documents.
#[derive(Debug)]
pub struct Corpus {
    pub(super) shards: Vec<Shard>,
    vocabulary: usize,
    tokens: u64,
    documents: usize,
}

/// Documents whose keys share a hash prefix, sorted by key, with the words they use.
#[derive(Clone, Debug, Default)]
pub(super) struct Shard {
    /// Document keys, ascending.
    pub(super) keys: Vec<u64>,
    /// Where each document's pairs start, and where the last one's end.
    pub(super) starts: Vec<usize>,
    /// Word of each pair, as an index into `dictionary`, ascending in a document.
    pub(super) words: Vec<u32>,
    /// Count of each pair. Counts over 2^24 lose their last bits.
    pub(super) counts: Vec<f32>,
    /// Ids of the words that the shard uses, ascending.
    pub(super) dictionary: Vec<u32>,
}

/// Pairs of a shard: enough that its φ rows are read more than once, few enough that they stay in cache.
const SHARD_PAIRS: usize = 1 << 15;
const SHARD_HASH: u64 = 0x7368_6172_6473;

impl Corpus {
    /// Makes a corpus of (document key, word id, count) in any order; equal pairs are added, zero counts dropped.
    ///
    /// # Errors
    /// A word id outside `vocabulary`, or more than 2^32 − 1 tokens.
    pub fn try_new(
        mut triples: Vec<(u64, u32, u32)>,
        vocabulary: usize,
    ) -> Result<Self, CorpusError> {
        let tokens = check(&triples, vocabulary)?;
        triples.retain(|triple| triple.2 > 0);
        let bits = triples
            .len()
            .div_ceil(SHARD_PAIRS)
            .next_power_of_two()
            .trailing_zeros();
        let shard_of = |document: u64| {
            let hash = rng::bits(SHARD_HASH, &[document]);
            hash.checked_shr(64 - bits).unwrap_or(0)
        };
        let mut keyed: Vec<_> = triples
            .into_iter()
            .map(|triple| (shard_of(triple.0), triple))
            .collect();
        keyed.sort_unstable_by_key(|&(shard, (document, word, _))| (shard, document, word));
        let shards: Vec<_> = keyed
            .chunk_by(|left, right| left.0 == right.0)
            .map(Shard::new)
            .collect();
        Ok(Self {
            documents: shards.iter().map(|shard| shard.keys.len()).sum(),
            shards,
            vocabulary,
            tokens,
        })
    }

    /// Returns V.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Returns the sum of all counts.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Returns (document key, word id, count) of each pair; documents in the order of their shards.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u32, f32)> {
        self.shards.iter().flat_map(|shard| {
            let documents = shard.keys.iter().enumerate();
            documents.flat_map(move |(index, &key)| {
                let (words, counts) = shard.document(index);
                let pairs = words.iter().zip(counts);
                pairs.map(move |(&word, &count)| (key, shard.dictionary[word as usize], count))
            })
        })
    }

    /// Returns the same documents with each word once.
    #[must_use]
    pub fn presence(&self) -> Self {
        let once = |shard: &Shard| Shard {
            counts: vec![1.0; shard.counts.len()],
            ..shard.clone()
        };
        Self {
            shards: self.shards.iter().map(once).collect(),
            tokens: self
                .shards
                .iter()
                .map(|shard| shard.words.len() as u64)
                .sum(),
            vocabulary: self.vocabulary,
            documents: self.documents,
        }
    }

    /// Returns the number of documents with at least one token.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents
    }
}

fn check(triples: &[(u64, u32, u32)], vocabulary: usize) -> Result<u64, CorpusError> {
    let mut tokens = 0_u64;
    for &(document, word, count) in triples {
        if word as usize >= vocabulary {
            return Err(CorpusError::Word {
                document,
                word,
                vocabulary,
            });
        }
        tokens += u64::from(count);
    }
    if tokens > u64::from(u32::MAX) {
        return Err(CorpusError::TooManyTokens { tokens });
    }
    Ok(tokens)
}

impl Shard {
    /// `pairs` of one shard, sorted by document and word.
    #[expect(clippy::cast_precision_loss, reason = "stated at the field")]
    fn new(pairs: &[(u64, (u64, u32, u32))]) -> Self {
        let mut dictionary: Vec<u32> = pairs.iter().map(|pair| pair.1.1).collect();
        dictionary.sort_unstable();
        dictionary.dedup();
        let mut shard = Self {
            dictionary,
            ..Self::default()
        };
        let same = |left: &(u64, (u64, u32, u32)), right: &(u64, (u64, u32, u32))| {
            (left.1.0, left.1.1) == (right.1.0, right.1.1)
        };
        for equal in pairs.chunk_by(same) {
            let (document, word, _) = equal[0].1;
            if shard.keys.last() != Some(&document) {
                shard.keys.push(document);
                shard.starts.push(shard.words.len());
            }
            let index = shard.dictionary.partition_point(|&id| id < word);
            shard.words.push(u32::try_from(index).unwrap_or(u32::MAX));
            let count: u64 = equal.iter().map(|pair| u64::from(pair.1.2)).sum();
            shard.counts.push(count as f32);
        }
        shard.starts.push(shard.words.len());
        shard
    }

    /// Returns words and counts of document `index`.
    pub(super) fn document(&self, index: usize) -> (&[u32], &[f32]) {
        let range = self.starts[index]..self.starts[index + 1];
        (&self.words[range.clone()], &self.counts[range])
    }
}
