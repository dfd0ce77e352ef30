//! Orders of the groups of a day.
//!
//! | order | first comes | meant for |
//! |---|---|---|
//! | half A | high S' = −log2 p + log2 n − log2(1 + r), r groups of the IP before it by S | loud and new |
//! | half B | low minimum of the mid-ranks of q and of PMI = log2(q / (n_w / N)) | quiet and odd |
//! | p | low q, Spot's p of the group | comparison with Spot |
//! | list | A and B in turn, each group once | the analyst |
//!
//! Ties go to the lower address, then to the word that comes first as text.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::HashSet;

use crate::column::Column;
use crate::column::RoomError;
use crate::detect::corpus::DayCorpus;
use crate::detect::corpus::Group;
use crate::detect::models::Scores;
use crate::word::flow::FlowWord;

/// The lowest probability that is told from 0.
const P_MIN: f64 = 1e-30;

/// The four orders; each holds indices of groups, best first.
#[derive(Debug)]
pub struct Ranking {
    /// The list.
    pub list: Vec<u32>,
    /// The half that brought each group into the list, `A` or `B`.
    pub halves: Vec<&'static str>,
    /// Half A.
    pub half_a: Vec<u32>,
    /// S' of the groups of half A.
    pub score_a: Vec<f64>,
    /// Half B; empty without models.
    pub half_b: Vec<u32>,
    /// The mid-ranks of the groups of half B, from 1.
    pub score_b: Vec<f64>,
    /// By q, all groups.
    pub by_p: Column<u32>,
}

/// Returns −log2 p in bits.
#[must_use]
pub fn bits(p: f64) -> f64 {
    -p.max(P_MIN).log2()
}

/// Returns log2(q / (n_w / N)).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
pub fn pmi(q: f64, flows_of_word: u64, tokens: u64) -> f64 {
    (q.max(P_MIN) * tokens.max(1) as f64 / flows_of_word.max(1) as f64).log2()
}

/// Returns p of a group from the share of hosts that have its word, where there are no models.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
pub fn host_share(hosts_of_word: u32, hosts: usize) -> f64 {
    (f64::from(hosts_of_word) - 0.5) / hosts.max(1) as f64
}

/// A group in an order.
#[derive(Clone, Copy)]
struct Entry {
    key: f64,
    ip: u128,
    /// Place of its word as text.
    word: u32,
    group: u32,
}

/// Groups by rising key, of which only the first lie in order: as many as somebody has asked for.
struct Rising {
    entries: Column<Entry>,
    sorted: usize,
}

/// Entries that are put in order at a time, at least.
const SORTED_MIN: usize = 1 << 14;

impl Rising {
    /// Returns the entry at a place of the order.
    fn get(&mut self, place: usize) -> Option<Entry> {
        if place >= self.sorted {
            // Twice as many each time: all others are gone through for it.
            self.sort(place.saturating_mul(2).max(SORTED_MIN));
        }
        self.entries.get(place).copied()
    }

    /// Returns those that have the same key as the one at a place, from there on.
    fn run(&mut self, place: usize) -> &[Entry] {
        let mut end = place;
        if let Some(first) = self.get(place) {
            while self.get(end).is_some_and(|entry| entry.key == first.key) {
                end += 1;
            }
        }
        &self.entries[place..end]
    }

    /// Puts the first in order, at least so many.
    fn sort(&mut self, count: usize) {
        let rest = &mut self.entries[self.sorted..];
        let more = count.saturating_sub(self.sorted).min(rest.len());
        if more < rest.len() {
            rest.select_nth_unstable_by(more, order);
        }
        rest[..more].sort_unstable_by(order);
        self.sorted += more;
    }
}

/// The groups of a day. All is read in one direction, or sorted: columns may lie in files.
struct Groups<'a> {
    corpus: &'a DayCorpus,
    scores: &'a Scores,
    /// Place of each word as text.
    texts: Vec<u32>,
}

impl<'a> Groups<'a> {
    fn new(corpus: &'a DayCorpus, scores: &'a Scores) -> Self {
        let texts: Vec<String> = corpus
            .words
            .iter()
            .map(|&word| FlowWord::from_bits(word).to_string())
            .collect();
        let mut by_text: Vec<u32> = (0..).take(texts.len()).collect();
        by_text.sort_unstable_by(|&left, &right| texts[left as usize].cmp(&texts[right as usize]));
        let mut places = vec![0_u32; texts.len()];
        for (place, &word) in (0..).zip(&by_text) {
            places[word as usize] = place;
        }
        Self {
            corpus,
            scores,
            texts: places,
        }
    }

    /// Returns all groups by rising key, which is made of a group, its p and its q.
    fn rising(&self, key: impl Fn(&Group, f64, f64) -> f64) -> Result<Rising, RoomError> {
        let Scores { presence, tokens } = self.scores;
        let all = self.corpus.groups.iter().zip(presence).zip(tokens).zip(0..);
        let entries = all.map(|(((group, &p), &q), index)| Entry {
            key: key(group, p, q),
            ip: group.ip,
            word: self.texts[group.word as usize],
            group: index,
        });
        Ok(Rising {
            entries: Column::of(self.corpus.room(), entries)?,
            sorted: 0,
        })
    }
}

fn order(left: &Entry, right: &Entry) -> Ordering {
    let ties = || (left.ip, left.word).cmp(&(right.ip, right.word));
    left.key.total_cmp(&right.key).then_with(ties)
}

/// Ranks all groups; the list and the halves hold the first `limit`.
///
/// # Errors
/// There is no room.
pub fn rank(
    corpus: &DayCorpus,
    scores: &Scores,
    half_b_share: f64,
    limit: usize,
) -> Result<Ranking, RoomError> {
    let groups = Groups::new(corpus, scores);
    let (half_a, score_a) = half_a(&groups, limit)?;
    let mut by_q = groups.rising(|_, _, q| q)?;
    by_q.sort(usize::MAX);
    let (half_b, score_b) = if half_b_share > 0.0 {
        half_b(&groups, &mut by_q, limit)?
    } else {
        (Vec::new(), Vec::new())
    };
    let (list, halves) = alternate(&half_a, &half_b, half_b_share, limit);
    Ok(Ranking {
        list,
        halves,
        half_a,
        score_a,
        half_b,
        score_b,
        by_p: Column::of(corpus.room(), by_q.entries.iter().map(|entry| entry.group))?,
    })
}

/// The first groups of an order, and their scores.
type Half = (Vec<u32>, Vec<f64>);

fn half_a(groups: &Groups<'_>, limit: usize) -> Result<Half, RoomError> {
    let mut by_loud = groups.rising(|group, p, _| -(bits(p) + f64::from(group.flows).log2()))?;
    let mut seen: BTreeMap<u128, u32> = BTreeMap::new();
    let mut first: Vec<Entry> = Vec::new();
    // Of the entries so far, the last of the first `limit`.
    let mut last = f64::INFINITY;
    for entry in (0..).map_while(|place| by_loud.get(place)) {
        // What comes after others of its IP only loses by it.
        if entry.key > last {
            break;
        }
        let before = seen.entry(entry.ip).or_default();
        let key = entry.key + f64::from(1 + *before).log2();
        *before += 1;
        first.push(Entry { key, ..entry });
        if first.len() >= limit.saturating_mul(2).max(1) {
            first.sort_unstable_by(order);
            first.truncate(limit);
            last = first.last().map_or(f64::NEG_INFINITY, |entry| entry.key);
        }
    }
    first.sort_unstable_by(order);
    first.truncate(limit);
    Ok(first.iter().map(|entry| (entry.group, -entry.key)).unzip())
}

fn half_b(groups: &Groups<'_>, by_q: &mut Rising, limit: usize) -> Result<Half, RoomError> {
    let flows_of_word = &groups.corpus.flows_of_word;
    let tokens: u64 = flows_of_word.iter().sum();
    let mut by_pmi =
        groups.rising(|group, _, q| pmi(q, flows_of_word[group.word as usize], tokens))?;
    // Those that are not among the first of any order are not among the first of both.
    let mut best: BTreeMap<u32, Entry> = BTreeMap::new();
    for order in [by_q, &mut by_pmi] {
        let mut start = 1.0;
        let mut taken = 0;
        while taken < limit {
            let run = order.run(taken);
            if run.is_empty() {
                break;
            }
            taken += run.len();
            let length = f64::from(u32::try_from(run.len()).unwrap_or(u32::MAX));
            let key = start + (length - 1.0) / 2.0;
            start += length;
            for entry in run {
                let best = best.entry(entry.group).or_insert(Entry { key, ..*entry });
                best.key = best.key.min(key);
            }
        }
    }
    let mut first: Vec<Entry> = best.into_values().collect();
    first.sort_unstable_by(order);
    first.truncate(limit);
    Ok(first.iter().map(|entry| (entry.group, entry.key)).unzip())
}

/// Takes from B as often as its share says, from A else; a group already taken is passed over. Returns the half of each too.
fn alternate(
    half_a: &[u32],
    half_b: &[u32],
    half_b_share: f64,
    limit: usize,
) -> (Vec<u32>, Vec<&'static str>) {
    let mut taken = HashSet::new();
    let (mut list, mut halves) = (Vec::with_capacity(limit), Vec::with_capacity(limit));
    let mut a = half_a.iter().map(|&group| (group, "A"));
    let mut b = half_b.iter().map(|&group| (group, "B"));
    let mut debt = 0.0;
    while list.len() < limit {
        debt += half_b_share;
        let next = if debt >= 1.0 - 1e-9 {
            debt -= 1.0;
            b.next().or_else(|| a.next())
        } else {
            a.next().or_else(|| b.next())
        };
        let Some((group, half)) = next else { break };
        if taken.insert(group) {
            list.push(group);
            halves.push(half);
        }
    }
    (list, halves)
}

/// Returns how many groups, by rising q, hold at least `limit` flows of lowest p, none above `threshold`:
/// each flow has two groups, so groups of 2 · `limit` flows hold `limit` distinct ones.
#[must_use]
pub fn lowest(
    corpus: &DayCorpus,
    scores: &Scores,
    by_p: &[u32],
    limit: Option<usize>,
    threshold: f64,
) -> usize {
    let wanted = limit.map_or(u64::MAX, |limit| (limit as u64).saturating_mul(2));
    let mut flows = 0;
    let mut last = f64::NEG_INFINITY;
    for (count, &group) in by_p.iter().enumerate() {
        let q = scores.tokens[group as usize];
        // Groups of the bound itself all belong: their flows compete by the key that breaks ties.
        if q > threshold || flows >= wanted && q > last {
            return count;
        }
        last = q;
        flows += u64::from(corpus.groups[group as usize].flows);
    }
    by_p.len()
}
