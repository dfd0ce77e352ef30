//! Orders of groups against the formulas, computed the slow way.

use std::sync::Arc;

use klieg::column::Column;
use klieg::column::Room;
use klieg::detect::corpus::DayCorpus;
use klieg::detect::models::Scores;
use klieg::detect::ranking;
use klieg::detect::ranking::Ranking;
use klieg::detect::reason::Explainer;
use klieg::engine::words;
use klieg::engine::words::Pair;
use klieg::word::Compat;
use klieg::word::flow;
use klieg::word::flow::Feature;
use klieg::word::flow::FlowFields;
use klieg::word::flow::FlowWord;
use klieg::word::flow::Protocol;

use crate::support::Rng;

fn word(port: u16, bytes: i64) -> u64 {
    let fields = FlowFields {
        hour: 9,
        src_port: 50_000,
        dst_port: port,
        protocol: Protocol::of_number(6),
        bytes,
        packets: 3,
    };
    flow::words(&fields, Compat::Mended)[0].bits()
}

fn corpus_in(room: &Arc<Room>) -> DayCorpus {
    let mut rng = Rng(5);
    let mut pairs = Vec::new();
    for host in 0..40_u32 {
        let ip = words::ip_key(std::net::Ipv4Addr::from(0x0a00_0000 + host).into());
        for port in [22, 25, 53, 80, 443] {
            if rng.below(3) > 0 {
                let count = 1 + rng.below(200) as u64;
                pairs.push(Pair {
                    ip,
                    word: word(port, 900),
                    count,
                });
            }
        }
    }
    pairs.sort_by_key(|pair| (pair.ip, pair.word));
    DayCorpus::try_new(&pairs, room).unwrap()
}

fn scores(corpus: &DayCorpus) -> Scores {
    let mut rng = Rng(6);
    // Few values, so that ties occur.
    let mut draw = || 10_f64.powi(-1 - i32::try_from(rng.below(5)).unwrap());
    let mut draws = || {
        let draws = corpus.groups.iter().map(|_| draw());
        Column::of(corpus.room(), draws).unwrap()
    };
    Scores {
        presence: draws(),
        tokens: draws(),
    }
}

fn corpus() -> DayCorpus {
    corpus_in(&Room::memory())
}

fn rank(corpus: &DayCorpus, scores: &Scores, half_b: f64, limit: usize) -> Ranking {
    ranking::rank(corpus, scores, half_b, limit).unwrap()
}

fn tie_key(corpus: &DayCorpus, group: usize) -> (u128, String) {
    let group = &corpus.groups[group];
    let text = FlowWord::from_bits(corpus.words[group.word as usize]).to_string();
    (group.ip, text)
}

/// Sorts groups by a key, ties by address and word.
fn sorted(corpus: &DayCorpus, key: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..corpus.groups.len()).collect();
    order.sort_by(|&left, &right| {
        let ties = || tie_key(corpus, left).cmp(&tie_key(corpus, right));
        key(left).total_cmp(&key(right)).then_with(ties)
    });
    order
}

fn numbers(groups: &[u32]) -> Vec<usize> {
    groups.iter().map(|&group| group as usize).collect()
}

#[test]
fn orders_follow_their_formulas() {
    let corpus = corpus();
    let scores = scores(&corpus);
    let all = corpus.groups.len();
    let ranking = rank(&corpus, &scores, 0.5, all);
    assert_eq!(
        numbers(&ranking.by_p),
        sorted(&corpus, |group| scores.tokens[group])
    );

    let loud = |group: usize| {
        -scores.presence[group].log2() + f64::from(corpus.groups[group].flows).log2()
    };
    let mut diverse = vec![0.0; all];
    let mut seen = std::collections::BTreeMap::new();
    for group in sorted(&corpus, |group| -loud(group)) {
        let before = seen.entry(corpus.groups[group].ip).or_insert(0_u32);
        diverse[group] = loud(group) - f64::from(1 + *before).log2();
        *before += 1;
    }
    assert_eq!(
        numbers(&ranking.half_a),
        sorted(&corpus, |group| -diverse[group])
    );
    for (group, score) in ranking.half_a.iter().zip(&ranking.score_a) {
        assert!((diverse[*group as usize] - score).abs() < 1e-9);
    }

    let tokens: u64 = corpus.flows_of_word.iter().sum();
    let pmi = |group: usize| {
        let word = corpus.groups[group].word as usize;
        (scores.tokens[group] / (corpus.flows_of_word[word] as f64 / tokens as f64)).log2()
    };
    let mid_rank = |key: &dyn Fn(usize) -> f64, group: usize| {
        let below = (0..all)
            .filter(|&other| key(other) < key(group) - 1e-12)
            .count() as f64;
        let equal = (0..all)
            .filter(|&other| (key(other) - key(group)).abs() <= 1e-12)
            .count() as f64;
        below + (equal + 1.0) / 2.0
    };
    let quiet =
        |group: usize| mid_rank(&|group| scores.tokens[group], group).min(mid_rank(&pmi, group));
    assert_eq!(numbers(&ranking.half_b), sorted(&corpus, quiet));

    let mut list: Vec<u32> = Vec::new();
    for (a, b) in ranking.half_a.iter().zip(&ranking.half_b) {
        for group in [a, b] {
            if !list.contains(group) {
                list.push(*group);
            }
        }
    }
    assert_eq!(ranking.list, list);
    let quarter = rank(&corpus, &scores, 0.25, 8).list;
    assert_eq!(quarter[..3], ranking.half_a[..3]);
    assert_eq!(quarter[3], ranking.half_b[0]);
}

#[test]
fn a_limit_cuts_the_halves_and_nothing_else() {
    let corpus = corpus();
    let scores = scores(&corpus);
    let all = corpus.groups.len();
    let ranking = rank(&corpus, &scores, 0.5, all);
    for limit in [0, 1, 2, 5, 20, all - 1] {
        let some = rank(&corpus, &scores, 0.5, limit);
        assert_eq!(some.half_a, ranking.half_a[..limit]);
        assert_eq!(some.score_a, ranking.score_a[..limit]);
        assert_eq!(some.half_b, ranking.half_b[..limit]);
        assert_eq!(some.score_b, ranking.score_b[..limit]);
    }
}

/// All columns in files, none, and some of them.
#[test]
fn a_day_that_has_no_room_in_memory_ranks_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let told = [u64::MAX, 0, 4096].map(|bytes| {
        let room = Room::new(folder.path(), bytes);
        let corpus = corpus_in(&room);
        let held_out = corpus.hold_out(5, 1, false).unwrap();
        let scores = scores(&corpus);
        let ranking = rank(&corpus, &scores, 0.5, 20);
        assert_eq!(room.files() > 0, bytes < u64::MAX);
        format!("{corpus:?} {held_out:?} {scores:?} {ranking:?}")
    });
    assert!(told[0].len() > 10_000);
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
}

#[test]
fn the_bound_holds_enough_flows() {
    let corpus = corpus();
    let scores = scores(&corpus);
    let by_p = rank(&corpus, &scores, 0.5, 10).by_p;
    for limit in [1, 50, 1000, 1_000_000] {
        let count = ranking::lowest(&corpus, &scores, &by_p, Some(limit), 1.0);
        let flows: u64 = by_p[..count]
            .iter()
            .map(|&group| u64::from(corpus.groups[group as usize].flows))
            .sum();
        assert!(flows >= 2 * limit as u64 || count == by_p.len(), "{limit}");
        if let Some(&next) = by_p.get(count) {
            let last = by_p[count - 1];
            assert!(
                scores.tokens[next as usize] > scores.tokens[last as usize],
                "ties of the bound belong"
            );
        }
    }
    let count = ranking::lowest(&corpus, &scores, &by_p, None, 1e-4);
    assert!(
        by_p[..count]
            .iter()
            .all(|&group| scores.tokens[group as usize] <= 1e-4)
    );
    assert!(
        by_p[count..]
            .iter()
            .all(|&group| scores.tokens[group as usize] > 1e-4)
    );
}

/// Everybody has port 443 with few bytes, one host has it with many: the bytes are odd.
#[test]
fn the_odd_feature_is_named() {
    let mut pairs = Vec::new();
    for host in 0..200_u128 {
        pairs.push(Pair {
            ip: host,
            word: word(443, 900),
            count: 5,
        });
        if host == 7 {
            pairs.push(Pair {
                ip: host,
                word: word(443, 90_000_000),
                count: 1,
            });
        }
    }
    pairs.sort_by_key(|pair| (pair.ip, pair.word));
    let corpus = DayCorpus::try_new(&pairs, &Room::memory()).unwrap();
    let odd = corpus
        .groups
        .iter()
        .find(|group| corpus.words[group.word as usize] == word(443, 90_000_000));
    let reason = &Explainer::new(&corpus, None).explain(&[*odd.unwrap()])[0];
    assert_eq!(reason.feature.0, Feature::Bytes);
    assert!((reason.feature.1 - 201_f64.log2()).abs() < 1e-9);
    assert_eq!(
        (reason.hosts, reason.hosts_total, reason.flows_of_ip),
        (1, 200, 6)
    );
    assert_eq!(reason.usual.1, 5);
}
