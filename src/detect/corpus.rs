//! Counts of a day as documents of words, and what is known of each pair.

use crate::engine::words::Pair;
use crate::ml::lda::Corpus;
use crate::ml::lda::CorpusError;
use crate::ml::rng;

/// Key of the hash that makes document keys of addresses.
const DOCUMENT_HASH: u64 = 0x6970_6b65_7973;
/// A use of random numbers.
const USE_HELD_OUT: u64 = 10;
const USE_HALF: u64 = 11;

/// In smaller days nothing is held out.
const HELD_OUT_HOSTS_MIN: usize = 100;

/// A group: one IP, one word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// The document: see [`crate::engine::words::ip_key`].
    pub ip: u128,
    /// Index into [`DayCorpus::words`].
    pub word: u32,
    /// Flows; 2^32 − 1 stands for more.
    pub flows: u32,
}

/// The documents of a day.
#[derive(Debug)]
pub struct DayCorpus {
    /// Distinct words, bits, ascending.
    pub words: Vec<u64>,
    /// Hosts that have each word.
    pub hosts_of_word: Vec<u32>,
    /// Flows of each word.
    pub flows_of_word: Vec<u64>,
    /// Groups in the order of [`Corpus::pairs`].
    pub groups: Vec<Group>,
    /// Counts of every document.
    pub counts: Corpus,
    /// (key, IP) by key.
    documents: Vec<(u64, u128)>,
}

/// Training documents, and the two halves of those held out.
#[derive(Debug)]
pub struct HeldOut {
    /// What a model is trained on.
    pub train: Corpus,
    /// One half of the tokens of the others.
    pub observed: Corpus,
    /// The other half.
    pub held: Corpus,
}

impl DayCorpus {
    /// Makes documents of counts, which are sorted by IP.
    ///
    /// # Errors
    /// More tokens than exact sums allow.
    pub fn try_new(pairs: &[Pair]) -> Result<Self, CorpusError> {
        let mut words: Vec<u64> = pairs.iter().map(|pair| pair.word).collect();
        words.sort_unstable();
        words.dedup();
        let documents = documents(pairs);
        let mut by_ip: Vec<(u128, u64)> = documents.iter().map(|&(key, ip)| (ip, key)).collect();
        by_ip.sort_unstable();
        let runs = pairs.chunk_by(|left, right| left.ip == right.ip);
        let mut triples = Vec::with_capacity(pairs.len());
        for (run, (_, key)) in runs.zip(by_ip) {
            let triple = |pair: &Pair| (key, word_id(&words, pair.word), saturated(pair.count));
            triples.extend(run.iter().map(triple));
        }
        let counts = Corpus::try_new(triples, words.len())?;
        let mut corpus = Self {
            hosts_of_word: vec![0; words.len()],
            flows_of_word: vec![0; words.len()],
            words,
            groups: Vec::with_capacity(pairs.len()),
            counts,
            documents,
        };
        corpus.fill(pairs);
        Ok(corpus)
    }

    fn fill(&mut self, pairs: &[Pair]) {
        let mut document = (None, 0, 0);
        for (key, word, _) in self.counts.pairs() {
            if document.0 != Some(key) {
                let index = self.documents.partition_point(|entry| entry.0 < key);
                let ip = self.documents[index].1;
                document = (Some(key), ip, pairs.partition_point(|pair| pair.ip < ip));
            }
            // Pairs of an IP have the order of its words, here as there.
            let pair = &pairs[document.2];
            document.2 += 1;
            self.hosts_of_word[word as usize] += 1;
            self.flows_of_word[word as usize] += pair.count;
            self.groups.push(Group {
                ip: document.1,
                word,
                flows: saturated(pair.count),
            });
        }
    }

    /// Returns D.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.documents.len()
    }

    /// Returns the key of an IP's document.
    #[must_use]
    pub fn document_key(&self, ip: u128) -> Option<u64> {
        let hash = key_of(ip);
        let from = self.documents.partition_point(|entry| entry.0 < hash);
        self.documents[from..]
            .iter()
            .find(|entry| entry.1 == ip)
            .map(|entry| entry.0)
    }

    /// Splits the documents, where there are enough to spare some; tokens of the held out ones are halved by random bits.
    ///
    /// # Errors
    /// None that the whole corpus did not have.
    pub fn hold_out(
        &self,
        per_cent: u64,
        seed: u64,
        presence: bool,
    ) -> Result<HeldOut, CorpusError> {
        let per_cent = if self.hosts() < HELD_OUT_HOSTS_MIN {
            0
        } else {
            per_cent
        };
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for ((key, word, _), group) in self.counts.pairs().zip(&self.groups) {
            let count = if presence { 1 } else { group.flows };
            if rng::bits(seed, &[USE_HELD_OUT, key]) % 100 >= per_cent {
                parts[0].push((key, word, count));
                continue;
            }
            let half = rng::thin(seed, &[USE_HALF, key, u64::from(word)], count);
            parts[1].push((key, word, half));
            parts[2].push((key, word, count - half));
        }
        let [train, observed, held] = parts.map(|part| Corpus::try_new(part, self.words.len()));
        Ok(HeldOut {
            train: train?,
            observed: observed?,
            held: held?,
        })
    }
}

fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn word_id(words: &[u64], word: u64) -> u32 {
    u32::try_from(words.partition_point(|&known| known < word)).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
fn key_of(ip: u128) -> u64 {
    rng::bits(DOCUMENT_HASH, &[(ip >> 64) as u64, ip as u64])
}

/// Document keys are hashes of addresses; where two are equal, the higher address takes the next free number.
fn documents(pairs: &[Pair]) -> Vec<(u64, u128)> {
    let runs = pairs.chunk_by(|left, right| left.ip == right.ip);
    let mut documents: Vec<_> = runs.map(|run| (key_of(run[0].ip), run[0].ip)).collect();
    documents.sort_unstable();
    let mut least = 0;
    for document in &mut documents {
        document.0 = document.0.max(least);
        least = document.0.saturating_add(1);
    }
    documents
}
