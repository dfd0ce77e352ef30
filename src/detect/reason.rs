//! Why a group stands where it stands: which feature of its word is improbable for this IP, and what is usual.
//!
//! For a feature f of word w, saved bits = log2(Σ_v p(w with f = v) / p(w)): how much less surprising the group would be if only
//! that feature were ordinary. Topics are those of the first presence model; without models, shares of hosts take their place.

use std::net::IpAddr;

use crate::detect::corpus::DayCorpus;
use crate::detect::corpus::Group;
use crate::engine::words;
use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::Fit;
use crate::word::flow::Feature;
use crate::word::flow::FlowWord;

/// Looked up, never iterated.
#[expect(clippy::disallowed_types, reason = "its order is never seen")]
type Lookup<K, V> = std::collections::HashMap<K, V>;

/// What is said about a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The feature that would save most bits, and how many.
    pub feature: (Feature, f64),
    /// The word that this IP has most often, and its flows.
    pub usual: (FlowWord, u64),
    /// All flows of this IP.
    pub flows_of_ip: u64,
    /// Hosts that have the word.
    pub hosts: u32,
    /// Hosts of the day.
    pub hosts_total: usize,
}

/// The model that explains.
pub struct Explainer<'a> {
    corpus: &'a DayCorpus,
    model: Option<(&'a Fit, &'a Corpus, &'a CheckedLdaParams)>,
    topic_counts: Vec<f64>,
}

impl<'a> Explainer<'a> {
    /// Takes the day and its first presence model, with what it was fitted to, and how.
    #[must_use]
    pub fn new(
        corpus: &'a DayCorpus,
        model: Option<(&'a Fit, &'a Corpus, &'a CheckedLdaParams)>,
    ) -> Self {
        let topic_counts = model.map_or_else(Vec::new, |(fit, ..)| fit.model.topic_counts());
        Self {
            corpus,
            model,
            topic_counts,
        }
    }

    /// Explains groups.
    #[must_use]
    pub fn explain(&self, groups: &[Group]) -> Vec<Reason> {
        let weights = self.weights(groups);
        let usual = self.usual(groups);
        let sums = self.masked_sums(groups);
        let reasons = groups.iter().zip(weights).map(|(group, weights)| {
            let word = self.corpus.words[group.word as usize];
            let own = dot(&self.word_weights(group.word), &weights);
            let saved = Feature::ALL.map(|feature| {
                let masked = feature.mask(FlowWord::from_bits(word));
                let all = sums
                    .get(&(feature, masked))
                    .map_or(0.0, |sum| dot(sum, &weights));
                (feature, (all.max(own) / own.max(1e-300)).log2())
            });
            let (first, rest) = (saved[0], &saved[1..]);
            let best = rest.iter().fold(
                first,
                |best, next| if next.1 > best.1 { *next } else { best },
            );
            let (usual_word, usual_flows, flows_of_ip) = usual[&group.ip];
            Reason {
                feature: best,
                usual: (
                    FlowWord::from_bits(self.corpus.words[usual_word as usize]),
                    usual_flows,
                ),
                flows_of_ip,
                hosts: self.corpus.hosts_of_word[group.word as usize],
                hosts_total: self.corpus.hosts(),
            }
        });
        reasons.collect()
    }

    /// θ of each group's document; one 1 without models.
    fn weights(&self, groups: &[Group]) -> Vec<Vec<f64>> {
        let Some((fit, fitted, params)) = self.model else {
            return vec![vec![1.0]; groups.len()];
        };
        let mut known: Lookup<u128, Vec<f64>> = Lookup::new();
        for group in groups {
            known.entry(group.ip).or_insert_with(|| {
                let key = self.corpus.document_key(group.ip);
                let mix =
                    key.and_then(|key| fit.topic_mix(fitted, key, params, &self.topic_counts));
                mix.unwrap_or_else(|| vec![1.0; fit.model.topics()])
            });
        }
        groups
            .iter()
            .map(|group| known[&group.ip].clone())
            .collect()
    }

    /// φ of a word by topic; its share of hosts without models.
    fn word_weights(&self, word: u32) -> Vec<f64> {
        let Some((fit, ..)) = self.model else {
            return vec![f64::from(self.corpus.hosts_of_word[word as usize])];
        };
        let topics = fit.model.topics();
        let counts = &fit.model.counts()[word as usize * topics..][..topics];
        let divide = |(count, sum): (&f64, &f64)| count / sum.max(1e-30);
        counts.iter().zip(&self.topic_counts).map(divide).collect()
    }

    /// Sums of word weights over the words that differ from a group's word in one feature only.
    fn masked_sums(&self, groups: &[Group]) -> Lookup<(Feature, u64), Vec<f64>> {
        let mut sums = Lookup::new();
        for group in groups {
            let word = FlowWord::from_bits(self.corpus.words[group.word as usize]);
            for feature in Feature::ALL {
                sums.entry((feature, feature.mask(word)))
                    .or_insert_with(Vec::new);
            }
        }
        for (index, &word) in (0..).zip(&self.corpus.words) {
            for feature in Feature::ALL {
                let Some(sum) = sums.get_mut(&(feature, feature.mask(FlowWord::from_bits(word))))
                else {
                    continue;
                };
                let weights = self.word_weights(index);
                sum.resize(weights.len(), 0.0);
                sum.iter_mut()
                    .zip(&weights)
                    .for_each(|(sum, weight)| *sum += weight);
            }
        }
        sums
    }

    /// Most frequent word, its flows and all flows, for each IP of `groups`.
    fn usual(&self, groups: &[Group]) -> Lookup<u128, (u32, u64, u64)> {
        let mut usual: Lookup<u128, (u32, u64, u64)> = Lookup::new();
        for group in groups {
            usual.insert(group.ip, (group.word, 0, 0));
        }
        for group in &self.corpus.groups {
            if let Some(entry) = usual.get_mut(&group.ip) {
                let flows = u64::from(group.flows);
                entry.2 += flows;
                let is_better = flows > entry.1 || flows == entry.1 && group.word < entry.0;
                if is_better {
                    (entry.0, entry.1) = (group.word, flows);
                }
            }
        }
        usual
    }
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter()
        .zip(right)
        .map(|(left, right)| left * right)
        .sum()
}

/// Renders an address of a group.
#[must_use]
pub fn ip(group: &Group) -> IpAddr {
    words::key_ip(group.ip)
}

impl Reason {
    /// Says it in one line.
    #[must_use]
    pub fn text(&self, word: FlowWord, flows: u32, bits: f64) -> String {
        let (feature, saved) = self.feature;
        let odds = bits.exp2();
        let times = if flows == 1 {
            "once".to_owned()
        } else {
            format!("{flows} times")
        };
        let hosts = match self.hosts {
            1 => "no other host has it".to_owned(),
            hosts => format!("{hosts} of {} hosts have it", self.hosts_total),
        };
        let usual = if self.usual.0 == word {
            format!(
                "it is this host's most frequent kind, {} of {} flows",
                self.usual.1, self.flows_of_ip
            )
        } else {
            format!(
                "usual here: {} ({} of {} flows)",
                self.usual.0.plain(),
                self.usual.1,
                self.flows_of_ip
            )
        };
        format!(
            "{times} {}: 1 in {odds:.0} for this host, {hosts}; odd is the {} ({saved:.1} bits); {usual}",
            word.plain(),
            feature.name(),
        )
    }
}
