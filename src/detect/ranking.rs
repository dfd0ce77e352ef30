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

use std::collections::HashSet;

use crate::column::Column;
use crate::column::RoomError;
use crate::detect::corpus::DayCorpus;
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

/// Groups in the order of ties, so that a position breaks them.
struct Ties {
    groups: Column<u32>,
    /// Number of the IP at each position.
    documents: Column<u32>,
}

impl Ties {
    fn new(corpus: &DayCorpus) -> Result<Self, RoomError> {
        let texts: Vec<String> = corpus
            .words
            .iter()
            .map(|&word| FlowWord::from_bits(word).to_string())
            .collect();
        let mut by_text: Vec<u32> = (0..).take(texts.len()).collect();
        by_text.sort_unstable_by(|&left, &right| texts[left as usize].cmp(&texts[right as usize]));
        let mut rank = vec![0_u32; texts.len()];
        for (position, &word) in (0..).zip(&by_text) {
            rank[word as usize] = position;
        }
        let room = corpus.room();
        let keyed = corpus.groups.iter().zip(0..);
        let keyed = keyed.map(|(group, index)| (group.ip, rank[group.word as usize], index));
        let mut keyed: Column<(u128, u32, u32)> = Column::of(room, keyed)?;
        keyed.sort_unstable();
        let mut documents = Column::with_capacity(room, keyed.len())?;
        let (mut document, mut last) = (0, None);
        for &(ip, ..) in &keyed {
            if last.is_some_and(|last| last != ip) {
                document += 1;
            }
            last = Some(ip);
            documents.push(document)?;
        }
        Ok(Self {
            groups: Column::of(room, keyed.iter().map(|entry| entry.2))?,
            documents,
        })
    }

    /// Returns positions by rising key.
    fn sorted(&self, key: impl Fn(usize) -> f64) -> Result<Column<(f64, u32)>, RoomError> {
        let keyed = self.groups.iter().zip(0..);
        let keyed = keyed.map(|(&group, position)| (key(group as usize), position));
        let mut keyed = Column::of(self.groups.room(), keyed)?;
        sort(&mut keyed);
        Ok(keyed)
    }

    fn group(&self, position: u32) -> u32 {
        self.groups[position as usize]
    }
}

fn sort(keyed: &mut [(f64, u32)]) {
    keyed.sort_unstable_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)));
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
    let ties = Ties::new(corpus)?;
    let (half_a, score_a) = half_a(corpus, scores, &ties, limit)?;
    let by_q = ties.sorted(|group| scores.tokens[group])?;
    let (half_b, score_b) = if half_b_share > 0.0 {
        half_b(corpus, scores, &ties, &by_q, limit)?
    } else {
        (Vec::new(), Vec::new())
    };
    let (list, halves) = alternate(&half_a, &half_b, half_b_share, limit);
    let by_p = by_q.iter().map(|&(_, position)| ties.group(position));
    Ok(Ranking {
        list,
        halves,
        half_a,
        score_a,
        half_b,
        score_b,
        by_p: Column::of(corpus.room(), by_p)?,
    })
}

/// The first groups of an order, and their scores.
type Half = (Vec<u32>, Vec<f64>);

fn half_a(
    corpus: &DayCorpus,
    scores: &Scores,
    ties: &Ties,
    limit: usize,
) -> Result<Half, RoomError> {
    let loud =
        |group: usize| bits(scores.presence[group]) + f64::from(corpus.groups[group].flows).log2();
    let mut order = ties.sorted(|group| -loud(group))?;
    let mut seen = Column::filled(corpus.room(), 0_u32, corpus.hosts())?;
    for (key, position) in order.iter_mut() {
        let before = &mut seen[ties.documents[*position as usize] as usize];
        *key += f64::from(1 + *before).log2();
        *before += 1;
    }
    sort(&mut order);
    let first = order.iter().take(limit);
    Ok(first
        .map(|&(key, position)| (ties.group(position), -key))
        .unzip())
}

fn half_b(
    corpus: &DayCorpus,
    scores: &Scores,
    ties: &Ties,
    by_q: &[(f64, u32)],
    limit: usize,
) -> Result<Half, RoomError> {
    let tokens: u64 = corpus.flows_of_word.iter().sum();
    let by_pmi = ties.sorted(|group| {
        let word = corpus.groups[group].word as usize;
        pmi(scores.tokens[group], corpus.flows_of_word[word], tokens)
    })?;
    let mut best = Column::filled(corpus.room(), f64::INFINITY, by_q.len())?;
    for order in [by_q, &*by_pmi] {
        let mut start = 1.0;
        for run in order.chunk_by(|left, right| left.0 == right.0) {
            let length = f64::from(u32::try_from(run.len()).unwrap_or(u32::MAX));
            let middle = start + (length - 1.0) / 2.0;
            start += length;
            for (_, position) in run {
                let value = &mut best[*position as usize];
                *value = value.min(middle);
            }
        }
    }
    drop(by_pmi);
    let mut order = Column::of(corpus.room(), best.iter().copied().zip(0..))?;
    sort(&mut order);
    let first = order.iter().take(limit);
    Ok(first
        .map(|&(key, position)| (ties.group(position), key))
        .unzip())
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
