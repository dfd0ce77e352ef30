//! E-steps and scores of pairs on other machines: shards and topics as bytes, and sums that are exact in any order.
//!
//! ```text
//! corpus ─► ShardData, once a shard ┐
//! S ─► Topics (φ), once a step ─────┼─► e_step ─► Sums of some shards ─► added to S: the bits of a fit on threads
//!                                    └─► scores, of the fitted model
//! ```

use crate::ml::lda::Corpus;
use crate::ml::lda::corpus::Shard;
use crate::ml::lda::counts::Grain;
use crate::ml::lda::kernel::Row;
use crate::ml::lda::shard::FoldInShard;
use crate::ml::lda::shard::Likelihood;
use crate::ml::lda::shard::Part;
use crate::ml::lda::shard::ScoreShard;
use crate::ml::lda::shard::TopicsOf;
use crate::ml::lda::simd::WIDTH;
use crate::ml::lda::simd::dispatch;
use crate::ml::lda::simd::with_vectors;

/// Does E-steps of a corpus elsewhere, and scores its pairs.
pub trait Workers {
    /// Why there is no result.
    type Error;

    /// Folds `shards`, by their numbers, in under `topics` and adds up what they give; likelihoods are in the order of `shards`.
    ///
    /// # Errors
    /// There is no result.
    fn e_step(&self, shards: &[u32], topics: &Topics, step: EStep) -> Result<Sums, Self::Error>;

    /// Calls `sink` with p(word | document) of each pair of the corpus, shard by shard.
    ///
    /// # Errors
    /// There is no result, or only a part of it.
    fn scores(&self, by: &ScoreBy, sink: &mut dyn FnMut(f32)) -> Result<(), Self::Error>;
}

/// What pairs are scored by.
#[derive(Clone, Debug)]
pub struct ScoreBy {
    /// φ with its prior: what documents are folded in under.
    pub smooth: Topics,
    /// φ without it, of the same words.
    pub plain: Topics,
    /// a, the pseudo-count of each topic in a document.
    pub document_pseudo_count: f32,
}

/// What all shards of an E-step have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EStep {
    /// a, the pseudo-count of each topic in a document.
    pub document_pseudo_count: f32,
    /// What each count is multiplied by before it is rounded.
    pub weight: f64,
    /// Tokens of the whole corpus, which say what counts are rounded to.
    pub tokens: u64,
}

impl EStep {
    /// Returns the power of two of which all counts are multiples.
    #[must_use]
    pub fn unit(self) -> f64 {
        Grain::of(self.tokens).unit()
    }
}

/// What shards add to S.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// A row of topics for each word of [`Topics::words`], in multiples of [`EStep::unit`].
    pub cells: Vec<f64>,
    /// Σ n ln(φ·θ) and a Σ ln θ of each shard.
    pub likelihoods: Vec<[f64; 2]>,
}

/// φ of the words that some shards use.
#[derive(Clone, Debug, PartialEq)]
pub struct Topics {
    topics: usize,
    /// Ids, ascending.
    words: Vec<u32>,
    /// Words × topics, row-major.
    cells: Vec<f32>,
}

/// Bytes that are no shard, or no topics.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is damaged")]
pub struct Damaged(&'static str);

impl Topics {
    pub(super) fn new(topics: usize, words: Vec<u32>, cells: Vec<f32>) -> Self {
        Self {
            topics,
            words,
            cells,
        }
    }

    /// Returns K.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics
    }

    /// Returns the ids of its words, ascending.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Returns K, the number of words, their ids, then the cells, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(4 * (2 + self.words.len() + self.cells.len()));
        let words = self.words.iter().copied();
        let sizes = [number(self.topics), number(self.words.len())];
        for value in sizes.into_iter().chain(words) {
            bytes.extend(value.to_le_bytes());
        }
        let head = bytes.len();
        bytes.resize(head + size_of_val(&*self.cells), 0);
        let (places, _) = bytes[head..].as_chunks_mut::<4>();
        for (place, cell) in places.iter_mut().zip(&self.cells) {
            *place = cell.to_le_bytes();
        }
        bytes
    }

    /// Reads such bytes.
    ///
    /// # Errors
    /// They are not whole, have a topic too many, or words out of order.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let damaged = Damaged("a table of topics");
        let (numbers, rest) = bytes.as_chunks::<4>();
        let [topics, words, numbers @ ..] = numbers else {
            return Err(damaged);
        };
        let [topics, words] = [*topics, *words].map(|size| u32::from_le_bytes(size) as usize);
        let is_whole = (1..=TOPICS_MAX).contains(&topics)
            && words.checked_mul(topics + 1) == Some(numbers.len());
        if !is_whole || !rest.is_empty() {
            return Err(damaged);
        }
        let (words, cells) = numbers.split_at(words);
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if !words.is_sorted_by(|left, right| left < right) {
            return Err(damaged);
        }
        Ok(Self {
            topics,
            words,
            cells: cells.iter().map(|cell| f32::from_le_bytes(*cell)).collect(),
        })
    }

    /// Reads tables that follow each other.
    ///
    /// # Errors
    /// One of them is none.
    pub fn all_of_bytes(mut bytes: &[u8]) -> Result<Vec<Self>, Damaged> {
        let damaged = Damaged("a table of topics");
        let mut tables = Vec::new();
        while let Some((sizes, _)) = bytes.split_first_chunk::<8>() {
            let [topics, words] = [0, 4].map(|at| {
                let size = [sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]];
                u64::from(u32::from_le_bytes(size))
            });
            let length = words
                .checked_mul(topics + 1)
                .map(|numbers| numbers.saturating_add(2));
            let length = length.and_then(|numbers| usize::try_from(numbers.saturating_mul(4)).ok());
            let table = length.and_then(|length| bytes.split_at_checked(length));
            let (table, rest) = table.ok_or(damaged)?;
            tables.push(Self::of_bytes(table)?);
            bytes = rest;
        }
        match bytes.is_empty() {
            true => Ok(tables),
            false => Err(damaged),
        }
    }

    /// Returns about how many bytes of memory it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of_val(&*self.words) + size_of_val(&*self.cells)
    }

    /// Returns the row of each word of an ascending list.
    fn rows_of(&self, dictionary: &[u32]) -> Result<Vec<u32>, Damaged> {
        let mut words = (0..).zip(&self.words);
        let row = |id: &u32| words.find(|(_, word)| *word == id).map(|(row, _)| row);
        let rows: Option<Vec<u32>> = dictionary.iter().map(row).collect();
        rows.ok_or(Damaged("a shard, or its table of topics,"))
    }

    /// Returns φ of some rows.
    #[inline(always)]
    pub(super) fn phi<const N: usize>(&self, rows: &[u32]) -> Vec<Row<N>> {
        let mut phi = vec![[[0.0; WIDTH]; N]; rows.len()];
        for (lanes, &row) in phi.iter_mut().zip(rows) {
            let cells = &self.cells[row as usize * self.topics..][..self.topics];
            lanes.as_flattened_mut()[..self.topics].copy_from_slice(cells);
        }
        phi
    }
}

/// Returns the first numbers of each row, one row after the other.
pub(super) fn cells_of<const N: usize>(chunks: &[Vec<Row<N>>], topics: usize) -> Vec<f32> {
    let rows: usize = chunks.iter().map(Vec::len).sum();
    let mut cells = Vec::with_capacity(rows * topics);
    for row in chunks.iter().flatten() {
        cells.extend_from_slice(&row.as_flattened()[..topics]);
    }
    cells
}

/// Topics with those that are merged at the end of the minibatches.
const TOPICS_MAX: usize = 64;

/// A shard without the keys of its documents.
#[derive(Debug)]
pub struct ShardData {
    keys: Vec<u64>,
    starts: Vec<u32>,
    words: Vec<u32>,
    counts: Vec<f32>,
    dictionary: Vec<u32>,
}

impl Corpus {
    /// Returns the bytes of each shard: numbers of documents, pairs and words, then starts of documents, words and counts of pairs
    /// and ids of words, all of four bytes, little-endian.
    pub fn packed(&self) -> impl Iterator<Item = Vec<u8>> {
        self.shards().into_iter().map(pack)
    }
}

fn pack(shard: Shard<'_>) -> Vec<u8> {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let sizes = [shard.keys.len(), shard.words.len(), shard.dictionary.len()];
    let sizes = sizes.into_iter().map(number);
    let starts = shard.starts.iter().copied();
    let counts = shard.counts.iter().map(|count| count.to_bits());
    let (words, ids) = (
        shard.words.iter().copied(),
        shard.dictionary.iter().copied(),
    );
    let numbers = sizes.chain(starts).chain(words).chain(counts).chain(ids);
    numbers.flat_map(u32::to_le_bytes).collect()
}

impl ShardData {
    /// Reads the bytes of a shard.
    ///
    /// # Errors
    /// They are not those of a shard.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let damaged = Damaged("a shard");
        let (numbers, rest) = bytes.as_chunks::<4>();
        let numbers: Vec<u32> = numbers
            .iter()
            .map(|number| u32::from_le_bytes(*number))
            .collect();
        let [documents, pairs, words, rows @ ..] = &numbers[..] else {
            return Err(damaged);
        };
        let [documents, pairs, words] = [*documents, *pairs, *words].map(|size| size as usize);
        let is_whole = documents + 1 + 2 * pairs + words == rows.len() && rest.is_empty();
        if !is_whole {
            return Err(damaged);
        }
        let (starts, rows) = rows.split_at(documents + 1);
        let (indices, rows) = rows.split_at(pairs);
        let (counts, dictionary) = rows.split_at(pairs);
        let is_ordered = starts.is_sorted() && starts.first() == Some(&0);
        let is_known = indices.iter().all(|&word| (word as usize) < words)
            && dictionary.is_sorted_by(|left, right| left < right);
        if !is_ordered || starts.last().map(|&end| end as usize) != Some(pairs) || !is_known {
            return Err(damaged);
        }
        Ok(Self {
            keys: (0..documents as u64).collect(),
            starts: starts.to_vec(),
            words: indices.to_vec(),
            counts: counts.iter().map(|&count| f32::from_bits(count)).collect(),
            dictionary: dictionary.to_vec(),
        })
    }

    /// Returns p(word | document) of each pair, as [`Fit::scores`](crate::ml::lda::Fit::scores) does.
    ///
    /// # Errors
    /// A word that has no row in both tables, or tables of different topics.
    pub fn scores(
        &self,
        (smooth, plain): (&Topics, &Topics),
        document_pseudo_count: f32,
    ) -> Result<Vec<f32>, Damaged> {
        if smooth.topics != plain.topics || smooth.words != plain.words {
            return Err(Damaged("one of two tables of topics"));
        }
        let rows = smooth.rows_of(&self.dictionary)?;
        Ok(with_vectors!(smooth.topics, N => dispatch(ScoreShard::<N> {
            shard: self.shard(),
            phi: &smooth.phi(&rows),
            plain: &plain.phi(&rows),
            prior: (smooth.topics, document_pseudo_count),
            mixtures: None,
        })))
    }

    /// Returns about how many bytes of memory it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        12 * self.keys.len() + 8 * self.words.len() + 4 * self.dictionary.len()
    }

    fn shard(&self) -> Shard<'_> {
        Shard {
            keys: &self.keys,
            starts: &self.starts,
            words: &self.words,
            counts: &self.counts,
            dictionary: &self.dictionary,
        }
    }
}

impl Sums {
    /// Sums of no shard.
    #[must_use]
    pub fn none(topics: &Topics) -> Self {
        Self {
            cells: vec![0.0; topics.cells.len()],
            likelihoods: Vec::new(),
        }
    }

    /// Does the E-step of a shard.
    ///
    /// # Errors
    /// A word that has no row in `topics`.
    pub fn fold(&mut self, shard: &ShardData, topics: &Topics, step: EStep) -> Result<(), Damaged> {
        let rows = topics.rows_of(&shard.dictionary)?;
        with_vectors!(topics.topics, N => {
            let part: Part<N> = dispatch(FoldInShard {
                shard: shard.shard(),
                topics_of: TopicsOf::Table(topics, &rows),
                prior: (topics.topics, step.document_pseudo_count),
            });
            self.add(&part, &rows, topics.topics, step);
        });
        Ok(())
    }

    fn add<const N: usize>(&mut self, part: &Part<N>, rows: &[u32], topics: usize, step: EStep) {
        let grain = Grain::of(step.tokens);
        for (values, &row) in part.rows.iter().zip(rows) {
            let cells = self.cells[row as usize * topics..].iter_mut();
            for (cell, &value) in cells.zip(&values.as_flattened()[..topics]) {
                *cell += grain.round(f64::from(value) * step.weight);
            }
        }
        let Likelihood { data, documents } = part.likelihood;
        self.likelihoods.push([data, documents]);
    }

    pub(super) fn likelihood(&self) -> Likelihood {
        let mut total = Likelihood::default();
        for &[data, documents] in &self.likelihoods {
            total += Likelihood { data, documents };
        }
        total
    }
}
