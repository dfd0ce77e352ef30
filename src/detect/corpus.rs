//! Counts of a day as documents of words, and what is known of each pair.

use std::collections::HashSet;
use std::sync::Arc;

use crate::column::Column;
use crate::column::Room;
use crate::column::RoomError;
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
    pub groups: Column<Group>,
    /// Counts of every document.
    pub counts: Corpus,
    /// (key, IP) by key.
    documents: Column<(u64, u128)>,
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
    /// More tokens than exact sums allow, or there is no room.
    pub fn try_new(pairs: &[Pair], room: &Arc<Room>) -> Result<Self, CorpusError> {
        let words: HashSet<u64> = pairs.iter().map(|pair| pair.word).collect();
        let mut words: Vec<u64> = words.into_iter().collect();
        words.sort_unstable();
        let documents = documents(pairs, room)?;
        let by_ip = documents.iter().map(|&(key, ip)| (ip, key));
        let mut by_ip = Column::of(room, by_ip)?;
        by_ip.sort_unstable();
        let runs = pairs.chunk_by(|left, right| left.ip == right.ip);
        let triples = runs.zip(&by_ip).flat_map(|(run, &(_, key))| {
            let words = &words;
            let triple = move |pair: &Pair| (key, word_id(words, pair.word), saturated(pair.count));
            run.iter().map(triple)
        });
        let (counts, flows) = Corpus::with_counts(room, triples, words.len())?;
        drop(by_ip);
        let (mut hosts_of_word, mut flows_of_word) = (vec![0; words.len()], vec![0; words.len()]);
        for pair in pairs {
            let word = word_id(&words, pair.word) as usize;
            hosts_of_word[word] += 1;
            flows_of_word[word] += pair.count;
        }
        Ok(Self {
            hosts_of_word,
            flows_of_word,
            words,
            groups: groups(&counts, &flows, &documents)?,
            counts,
            documents,
        })
    }

    /// Returns the room that it is in.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        self.groups.room()
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
    /// There is no room; none else that the whole corpus did not have.
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
        let all = || {
            let pairs = self.counts.pairs().zip(&self.groups);
            pairs.map(|((key, word, _), group)| (key, word, if presence { 1 } else { group.flows }))
        };
        let is_spared = |key: u64| rng::bits(seed, &[USE_HELD_OUT, key]) % 100 < per_cent;
        let spared = || all().filter(|&(key, ..)| is_spared(key));
        let half = |key: u64, word: u32, count: u32| {
            rng::thin(seed, &[USE_HALF, key, u64::from(word)], count)
        };
        let observed = || spared().map(|(key, word, count)| (key, word, half(key, word, count)));
        let held =
            || spared().map(|(key, word, count)| (key, word, count - half(key, word, count)));
        let vocabulary = self.words.len();
        let train = all().filter(|&(key, ..)| !is_spared(key));
        Ok(HeldOut {
            train: Corpus::try_new_in(self.room(), train, vocabulary)?,
            observed: Corpus::try_new_in(self.room(), observed(), vocabulary)?,
            held: Corpus::try_new_in(self.room(), held(), vocabulary)?,
        })
    }
}

/// Returns the groups of pairs, in their order; nothing is looked up, since all may lie in files.
fn groups(
    counts: &Corpus,
    flows: &Column<u32>,
    documents: &[(u64, u128)],
) -> Result<Column<Group>, RoomError> {
    let mut ips = Column::of(flows.room(), documents.iter().copied())?;
    ips.sort_unstable_by_key(|&(key, _)| counts.place(key));
    let mut ips = ips.iter();
    let (mut last, mut ip) = (None, 0);
    let groups = counts.pairs().zip(flows).map(|((key, word, _), &flows)| {
        if last.replace(key) != Some(key) {
            ip = ips.next().map_or(0, |&(_, ip)| ip);
        }
        Group { ip, word, flows }
    });
    Column::of(flows.room(), groups)
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
fn documents(pairs: &[Pair], room: &Arc<Room>) -> Result<Column<(u64, u128)>, RoomError> {
    let runs = pairs.chunk_by(|left, right| left.ip == right.ip);
    let mut documents = Column::of(room, runs.map(|run| (key_of(run[0].ip), run[0].ip)))?;
    documents.sort_unstable();
    let mut least = 0;
    for document in documents.iter_mut() {
        document.0 = document.0.max(least);
        least = document.0.saturating_add(1);
    }
    Ok(documents)
}
