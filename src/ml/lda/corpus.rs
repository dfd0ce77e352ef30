//! Documents in virtual shards.

use std::sync::Arc;

use crate::column::Column;
use crate::column::Room;
use crate::column::RoomError;
use crate::ml::lda::counts::TOKENS_MAX;
use crate::ml::rng;

/// What a corpus cannot hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
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
    #[error("{tokens} tokens are more than the {TOKENS_MAX} that can be summed exactly")]
    TooManyTokens {
        /// Sum of all counts.
        tokens: u64,
    },
    /// More pairs than have a number.
    #[error("{pairs} pairs of document and word are more than {}", u32::MAX)]
    TooManyPairs {
        /// With counts over 0.
        pairs: usize,
    },
    /// It does not fit.
    #[error(transparent)]
    Room(#[from] RoomError),
}

/// Counts of words in documents.
#[derive(Debug)]
pub struct Corpus {
    layout: Arc<Layout>,
    /// Count of each pair. Counts over 2^24 lose their last bits.
    counts: Column<f32>,
    vocabulary: usize,
    tokens: u64,
}

/// The pairs of a corpus but for their counts, shard after shard.
#[derive(Debug)]
struct Layout {
    /// Document keys, ascending in a shard.
    keys: Column<u64>,
    /// Where each document's pairs start in its shard, and where the last one's end.
    starts: Column<u32>,
    /// Word of each pair, as an index into its shard's dictionary, ascending in a document.
    words: Column<u32>,
    /// Ids of the words that each shard uses, ascending.
    dictionary: Column<u32>,
    /// Where each shard ends.
    ends: Vec<Ends>,
    /// Bits of the hash that tell shards apart.
    bits: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    documents: usize,
    pairs: usize,
    dictionary: usize,
}

/// Documents whose keys share a hash prefix, sorted by key, with the words they use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard<'a> {
    pub(super) keys: &'a [u64],
    pub(super) starts: &'a [u32],
    pub(super) words: &'a [u32],
    pub(super) counts: &'a [f32],
    pub(super) dictionary: &'a [u32],
}

/// Pairs of a shard: enough that its φ rows are read more than once, few enough that they stay in cache.
const SHARD_PAIRS: usize = 1 << 15;
const SHARD_HASH: u64 = 0x7368_6172_6473;

/// A pair with the hash of its document.
#[derive(Clone, Copy, Debug)]
struct Keyed {
    shard: u64,
    document: u64,
    word: u32,
    count: u32,
}

impl Corpus {
    /// Makes a corpus of (document key, word id, count) in any order; equal pairs are added, zero counts dropped.
    ///
    /// # Errors
    /// A word id outside `vocabulary`, more than 2^52 tokens, or more than 2^32 − 1 pairs.
    pub fn try_new(
        triples: impl IntoIterator<Item = (u64, u32, u32)>,
        vocabulary: usize,
    ) -> Result<Self, CorpusError> {
        Self::try_new_in(&Room::memory(), triples, vocabulary)
    }

    /// The same in a room.
    ///
    /// # Errors
    /// As above, or there is no room.
    pub fn try_new_in(
        room: &Arc<Room>,
        triples: impl IntoIterator<Item = (u64, u32, u32)>,
        vocabulary: usize,
    ) -> Result<Self, CorpusError> {
        let (keyed, tokens, bits) = keyed(room, triples, vocabulary)?;
        Ok(Self::of(room, &keyed, (vocabulary, tokens, bits))?)
    }

    /// The same of pairs that are different, with their exact counts, in the order of [`Corpus::pairs`].
    ///
    /// # Errors
    /// As above.
    pub fn with_counts(
        room: &Arc<Room>,
        triples: impl IntoIterator<Item = (u64, u32, u32)>,
        vocabulary: usize,
    ) -> Result<(Self, Column<u32>), CorpusError> {
        let (keyed, tokens, bits) = keyed(room, triples, vocabulary)?;
        let corpus = Self::of(room, &keyed, (vocabulary, tokens, bits))?;
        let counts = Column::of(room, keyed.iter().map(|pair| pair.count))?;
        Ok((corpus, counts))
    }

    fn of(
        room: &Arc<Room>,
        keyed: &[Keyed],
        (vocabulary, tokens, bits): (usize, u64, u32),
    ) -> Result<Self, RoomError> {
        let (layout, counts) = Layout::of(room, keyed, bits)?;
        Ok(Self {
            layout: Arc::new(layout),
            counts,
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

    /// Returns its shards, by the hashes of their documents.
    pub(super) fn shards(&self) -> Vec<Shard<'_>> {
        (0..self.layout.ends.len())
            .map(|index| self.shard(index))
            .collect()
    }

    /// Returns how many pairs each shard has.
    pub fn shard_pairs(&self) -> impl Iterator<Item = usize> {
        self.shards().into_iter().map(|shard| shard.words.len())
    }

    pub(super) fn shard(&self, index: usize) -> Shard<'_> {
        let Layout { ends, .. } = &*self.layout;
        let before = index
            .checked_sub(1)
            .map_or(Ends::default(), |last| ends[last]);
        let end = ends[index];
        let pairs = before.pairs..end.pairs;
        Shard {
            keys: &self.layout.keys[before.documents..end.documents],
            // Each shard has one more of them than documents.
            starts: &self.layout.starts[before.documents + index..=end.documents + index],
            words: &self.layout.words[pairs.clone()],
            counts: &self.counts[pairs],
            dictionary: &self.layout.dictionary[before.dictionary..end.dictionary],
        }
    }

    /// Returns what documents are sorted by: the number of the shard, then the key.
    #[must_use]
    pub fn place(&self, key: u64) -> (u64, u64) {
        (prefix(hash(key), self.layout.bits), key)
    }

    /// Returns shard and index of the document with this key.
    pub(super) fn find(&self, key: u64) -> Option<(Shard<'_>, usize)> {
        let Layout {
            ends, keys, bits, ..
        } = &*self.layout;
        let (wanted, _) = self.place(key);
        let last_of = |end: &Ends| prefix(hash(keys[end.documents - 1]), *bits);
        let shard = ends.partition_point(|end| last_of(end) < wanted);
        let shard = (shard < ends.len()).then(|| self.shard(shard))?;
        let index = shard.keys.binary_search(&key).ok()?;
        Some((shard, index))
    }

    /// Returns (document key, word id, count) of each pair; documents in the order of their shards.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u32, f32)> {
        self.shards().into_iter().flat_map(|shard| {
            let documents = shard.keys.iter().enumerate();
            documents.flat_map(move |(index, &key)| {
                let (words, counts) = shard.document(index);
                let pairs = words.iter().zip(counts);
                pairs.map(move |(&word, &count)| (key, shard.dictionary[word as usize], count))
            })
        })
    }

    /// Returns the same documents with each word once.
    ///
    /// # Errors
    /// There is no room.
    pub fn presence(&self) -> Result<Self, RoomError> {
        Ok(Self {
            layout: Arc::clone(&self.layout),
            counts: Column::filled(self.counts.room(), 1.0, self.counts.len())?,
            tokens: self.counts.len() as u64,
            vocabulary: self.vocabulary,
        })
    }

    /// Returns the number of documents with at least one token.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.layout.keys.len()
    }
}

/// Returns pairs by shard, document and word, the sum of their counts, and the bits that tell shards apart.
fn keyed(
    room: &Arc<Room>,
    triples: impl IntoIterator<Item = (u64, u32, u32)>,
    vocabulary: usize,
) -> Result<(Column<Keyed>, u64, u32), CorpusError> {
    let mut tokens = 0_u64;
    let mut keyed = Column::new(room);
    for (document, word, count) in triples {
        if word as usize >= vocabulary {
            return Err(CorpusError::Word {
                document,
                word,
                vocabulary,
            });
        }
        tokens = tokens.saturating_add(u64::from(count));
        if count > 0 {
            keyed.push(Keyed {
                shard: hash(document),
                document,
                word,
                count,
            })?;
        }
    }
    if tokens > TOKENS_MAX {
        return Err(CorpusError::TooManyTokens { tokens });
    }
    let pairs = keyed.len();
    if u32::try_from(pairs).is_err() {
        return Err(CorpusError::TooManyPairs { pairs });
    }
    let shards = pairs.div_ceil(SHARD_PAIRS).next_power_of_two();
    let bits = shards.trailing_zeros();
    for pair in keyed.iter_mut() {
        pair.shard = prefix(pair.shard, bits);
    }
    keyed.sort_unstable_by_key(|pair| (pair.shard, pair.document, pair.word));
    Ok((keyed, tokens, bits))
}

fn hash(document: u64) -> u64 {
    rng::bits(SHARD_HASH, &[document])
}

fn prefix(hash: u64, bits: u32) -> u64 {
    hash.checked_shr(64 - bits).unwrap_or(0)
}

impl Layout {
    /// Returns layout and counts of pairs that are sorted by shard, document and word.
    #[expect(clippy::cast_precision_loss, reason = "stated at the field")]
    fn of(room: &Arc<Room>, pairs: &[Keyed], bits: u32) -> Result<(Self, Column<f32>), RoomError> {
        let mut layout = Self {
            keys: Column::new(room),
            starts: Column::new(room),
            words: Column::with_capacity(room, pairs.len())?,
            dictionary: Column::new(room),
            ends: Vec::new(),
            bits,
        };
        let mut counts = Column::with_capacity(room, pairs.len())?;
        for shard in pairs.chunk_by(|left, right| left.shard == right.shard) {
            let mut dictionary: Vec<u32> = shard.iter().map(|pair| pair.word).collect();
            dictionary.sort_unstable();
            dictionary.dedup();
            let (first, mut last) = (layout.words.len(), None);
            let start =
                |words: &Column<u32>| u32::try_from(words.len() - first).unwrap_or(u32::MAX);
            let same = |left: &Keyed, right: &Keyed| {
                (left.document, left.word) == (right.document, right.word)
            };
            for equal in shard.chunk_by(same) {
                let Keyed { document, word, .. } = equal[0];
                if last.replace(document) != Some(document) {
                    layout.keys.push(document)?;
                    layout.starts.push(start(&layout.words))?;
                }
                let index = dictionary.partition_point(|&id| id < word);
                layout
                    .words
                    .push(u32::try_from(index).unwrap_or(u32::MAX))?;
                let count: u64 = equal.iter().map(|pair| u64::from(pair.count)).sum();
                counts.push(count as f32)?;
            }
            layout.starts.push(start(&layout.words))?;
            layout.dictionary.extend(dictionary)?;
            layout.ends.push(Ends {
                documents: layout.keys.len(),
                pairs: layout.words.len(),
                dictionary: layout.dictionary.len(),
            });
        }
        Ok((layout, counts))
    }
}

impl<'a> Shard<'a> {
    /// Returns words and counts of document `index`.
    pub(super) fn document(&self, index: usize) -> (&'a [u32], &'a [f32]) {
        let range = self.starts[index] as usize..self.starts[index + 1] as usize;
        (&self.words[range.clone()], &self.counts[range])
    }
}
