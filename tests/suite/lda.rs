//! The topic model against a naive reference, against the topics that made a corpus, and against itself on other threads.

use std::num::NonZeroUsize;

use klieg::ml::lda;
use klieg::ml::lda::Corpus;
use klieg::ml::lda::CorpusError;
use klieg::ml::lda::LdaModel;
use klieg::ml::lda::LdaParams;
use klieg::ml::lda::MixtureParams;
use klieg::ml::lda::Optimizer;
use klieg::ml::lda::ParamsError;
use klieg::ml::rng;

use crate::support::Rng;

type Triples = Vec<(u64, u32, u32)>;

const EM: LdaParams = LdaParams {
    optimizer: Optimizer::Em,
    topics: 5,
    document_pseudo_count: 0.02,
    word_pseudo_count: 0.001,
    iterations: 20,
    online_epochs: 2,
    seed: 1,
};
const ONLINE: LdaParams = LdaParams {
    optimizer: Optimizer::Online,
    document_pseudo_count: 0.1,
    word_pseudo_count: 0.01,
    ..EM
};

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn fit(triples: &Triples, vocabulary: usize, params: LdaParams, workers: usize) -> LdaModel {
    let corpus = Corpus::try_new(triples.clone(), vocabulary).unwrap();
    lda::fit(&corpus, &params.check().unwrap(), threads(workers), |_| ()).model
}

/// Documents drawn from known topics: training counts, and two halves of other documents.
struct Drawn {
    topics: Vec<Vec<f64>>,
    train: Triples,
    observed: Triples,
    held: Triples,
}

const VOCABULARY: usize = 400;

fn draw(documents: u64) -> Drawn {
    let mut rng = Rng(5);
    let mut unit =
        move || f64::from(u32::try_from(rng.next() >> 32).unwrap()) / f64::from(u32::MAX);
    let topics: Vec<_> = (0..5)
        .map(|_| cumulated((0..VOCABULARY).map(|_| unit().powi(12))))
        .collect();
    let mut drawn = Drawn {
        topics: topics.iter().map(|topic| differences(topic)).collect(),
        train: Vec::new(),
        observed: Vec::new(),
        held: Vec::new(),
    };
    for document in 0..documents {
        let mix = cumulated((0..5).map(|_| unit().powi(6) + 1e-6));
        let length = 20.0 + 200.0 * unit().powi(3);
        let mut left = length;
        while left > 0.0 {
            left -= 1.0;
            let topic = &topics[pick(&mix, unit())];
            let token = (document, u32::try_from(pick(topic, unit())).unwrap(), 1);
            if document % 5 != 0 {
                drawn.train.push(token);
            } else if unit() < 0.5 {
                drawn.observed.push(token);
            } else {
                drawn.held.push(token);
            }
        }
    }
    drawn
}

fn cumulated(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sums: Vec<_> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let total = *sums.last().unwrap();
    sums.iter_mut().for_each(|sum| *sum /= total);
    sums
}

fn differences(sums: &[f64]) -> Vec<f64> {
    let before = std::iter::once(&0.0).chain(sums);
    sums.iter()
        .zip(before)
        .map(|(sum, before)| sum - before)
        .collect()
}

fn pick(sums: &[f64], at: f64) -> usize {
    sums.partition_point(|&sum| sum < at).min(sums.len() - 1)
}

fn perplexity(model: &LdaModel, drawn: &Drawn) -> f64 {
    let observed = Corpus::try_new(drawn.observed.clone(), VOCABULARY).unwrap();
    let held = Corpus::try_new(drawn.held.clone(), VOCABULARY).unwrap();
    let params = MixtureParams {
        document_pseudo_count: 0.1,
        sweeps_max: 100,
        tolerance: 1e-6,
    };
    model.perplexity(&observed, &held, &params, threads(2))
}

fn truth(drawn: &Drawn) -> LdaModel {
    let counts =
        (0..VOCABULARY).flat_map(|word| drawn.topics.iter().map(move |topic| 1e9 * topic[word]));
    LdaModel::new(5, 1e-9, counts.collect())
}

/// Spark's update written down as in the paper, in f64, with γ of every pair.
fn naive_em(triples: &Triples, vocabulary: usize, params: LdaParams) -> Vec<f64> {
    let (k, a, b) = (
        params.topics,
        f64::from(params.document_pseudo_count),
        f64::from(params.word_pseudo_count),
    );
    let documents =
        usize::try_from(triples.iter().map(|triple| triple.0).max().unwrap()).unwrap() + 1;
    let mut n_wk = vec![0.0; vocabulary * k];
    let mut n_jk = vec![0.0; documents * k];
    for &(document, word, count) in triples {
        let random = rng::bits(params.seed, &[1, document, u64::from(word)]);
        let chosen = usize::try_from(random % k as u64).unwrap();
        for topic in 0..k {
            let share = 0.5 / k as f64 + if topic == chosen { 0.5 } else { 0.0 };
            n_wk[word as usize * k + topic] += f64::from(count) * share;
            n_jk[usize::try_from(document).unwrap() * k + topic] += f64::from(count) * share;
        }
    }
    for _ in 0..params.iterations {
        let n_k: Vec<f64> = (0..k)
            .map(|topic| n_wk.iter().skip(topic).step_by(k).sum())
            .collect();
        let (old_wk, old_jk) = (n_wk.clone(), n_jk.clone());
        n_wk.fill(0.0);
        n_jk.fill(0.0);
        for &(document, word, count) in triples {
            let (w, j) = (word as usize * k, usize::try_from(document).unwrap() * k);
            let gamma: Vec<_> = (0..k)
                .map(|t| {
                    (old_wk[w + t] + b) * (old_jk[j + t] + a) / (n_k[t] + b * vocabulary as f64)
                })
                .collect();
            let total: f64 = gamma.iter().sum();
            for (topic, gamma) in gamma.iter().enumerate() {
                n_wk[w + topic] += f64::from(count) * gamma / total;
                n_jk[j + topic] += f64::from(count) * gamma / total;
            }
        }
    }
    n_wk
}

/// Random counts; f32 against f64 leaves a relative difference of about 1e-5 (lda.md measures 2.5e-4 at most on scores).
#[test]
fn em_is_sparks_update() {
    let mut rng = Rng(3);
    for topics in [1, 2, 5, 8, 9, 24, 56] {
        let mut triples = Triples::new();
        for document in 0..12 {
            for word in 0..15 {
                if rng.below(3) == 0 {
                    triples.push((document, word, u32::try_from(1 + rng.below(9)).unwrap()));
                }
            }
        }
        triples.push((12, 0, (1 << 24) + 1));
        let params = LdaParams {
            topics,
            iterations: 5,
            ..EM
        };
        let expected = naive_em(&triples, 15, params);
        let model = fit(&triples, 15, params, 1);
        for (found, expected) in model.counts().iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= 1e-3 * expected.abs() + 1e-3,
                "{topics} topics: {found} {expected}"
            );
        }
    }
}

/// With one document every model gives back the frequencies of its words (a property of Spot's score too).
#[test]
fn one_document_gives_its_frequencies() {
    let model = fit(
        &vec![(9, 0, 1), (9, 1, 999)],
        2,
        LdaParams { topics: 2, ..EM },
        1,
    );
    let sums = model.topic_counts();
    let p = model.word_probabilities();
    let dog: f64 = (0..2).map(|k| sums[k] / 1000.0 * p[2 + k]).sum();
    assert!((dog - 0.999).abs() < 1e-6, "{dog}");
}

#[test]
fn objective_of_em_never_falls() {
    let drawn = draw(400);
    let corpus = Corpus::try_new(drawn.train, VOCABULARY).unwrap();
    let mut objectives = Vec::new();
    let params = LdaParams {
        iterations: 40,
        ..EM
    }
    .check()
    .unwrap();
    lda::fit(&corpus, &params, threads(1), |epoch| {
        objectives.push(epoch.objective);
    });
    assert_eq!(objectives.len(), 40);
    // f32 kernels: a slack of 1e-6.
    let never_falls = |pair: &[f64]| pair[1] >= pair[0] - 1e-6 * pair[0].abs();
    assert!(objectives.windows(2).all(never_falls), "{objectives:?}");
    assert!(objectives[39] > objectives[0]);
}

#[test]
fn bits_do_not_depend_on_threads_or_order() {
    let drawn = draw(3000);
    let mut shuffled = drawn.train.clone();
    let mut rng = Rng(11);
    for index in (1..shuffled.len()).rev() {
        shuffled.swap(index, rng.below(index + 1));
    }
    for params in [EM, ONLINE] {
        let expected = fit(&drawn.train, VOCABULARY, params, 1);
        for workers in [2, 7] {
            assert!(
                fit(&shuffled, VOCABULARY, params, workers) == expected,
                "{params:?}, {workers} threads"
            );
        }
        let other_seed = LdaParams { seed: 2, ..params };
        assert!(
            fit(&drawn.train, VOCABULARY, other_seed, 1) != expected,
            "the seed must matter"
        );
    }
}

#[test]
fn topics_are_recovered() {
    let drawn = draw(3000);
    let best = perplexity(&truth(&drawn), &drawn);
    let unigram = perplexity(
        &fit(&drawn.train, VOCABULARY, LdaParams { topics: 1, ..EM }, 1),
        &drawn,
    );
    for params in [
        LdaParams {
            iterations: 60,
            ..EM
        },
        ONLINE,
    ] {
        let found = perplexity(&fit(&drawn.train, VOCABULARY, params, 2), &drawn);
        assert!(
            found <= 1.06 * best && found < 0.8 * unigram,
            "{params:?}: {found}, true topics {best}, unigram {unigram}"
        );
    }
}

#[test]
fn counts_add_up_to_the_tokens() {
    let drawn = draw(500);
    let tokens = drawn.train.len();
    for params in [EM, ONLINE] {
        let sum: f64 = fit(&drawn.train, VOCABULARY, params, 1)
            .counts()
            .iter()
            .sum();
        assert!(
            (sum / tokens as f64 - 1.0).abs() < 1e-4,
            "{params:?}: {sum} of {tokens}"
        );
    }
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    assert_eq!(
        LdaParams { topics: 0, ..EM }.check(),
        Err(ParamsError::Topics(0))
    );
    assert_eq!(
        LdaParams {
            document_pseudo_count: 0.0,
            ..EM
        }
        .check(),
        Err(ParamsError::Alpha(1.0))
    );
    assert_eq!(
        LdaParams {
            word_pseudo_count: -0.5,
            ..EM
        }
        .check(),
        Err(ParamsError::Beta(0.5))
    );
    let outside = CorpusError::Word {
        document: 7,
        word: 3,
        vocabulary: 3,
    };
    assert_eq!(Corpus::try_new(vec![(7, 3, 1)], 3).unwrap_err(), outside);
    let documents = (1 << 20) + 1;
    let tokens = documents * u64::from(u32::MAX);
    let many = (0..documents).map(|document| (document, 0, u32::MAX));
    assert_eq!(
        Corpus::try_new(many, 1).unwrap_err(),
        CorpusError::TooManyTokens { tokens }
    );
}

#[test]
fn an_empty_corpus_gives_an_empty_model() {
    for params in [EM, ONLINE] {
        let model = fit(&Triples::new(), 3, params, 2);
        assert_eq!(model.counts().iter().sum::<f64>(), 0.0);
    }
}

/// No document is long enough to start a topic from, and still the two kinds of documents must be told apart.
#[test]
fn topics_of_short_documents_are_found() {
    let words = |document: u64| {
        (0..4_u32).map(move |word| (document, word + 4 * u32::try_from(document % 2).unwrap(), 1))
    };
    let triples: Triples = (0..300).flat_map(words).collect();
    let p = fit(
        &triples,
        8,
        LdaParams {
            topics: 2,
            ..ONLINE
        },
        1,
    )
    .word_probabilities();
    let of_first_kind: f64 = (0..4).map(|word| p[word * 2]).sum();
    assert!(!(0.01..0.99).contains(&of_first_kind), "{of_first_kind}");
}

/// Area under the curve: a random anomaly lies lower than a random ordinary pair, ties half.
fn auroc_low(anomalies: &[f64], ordinary: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = anomalies.iter().map(|&score| (score, true)).collect();
    all.extend(ordinary.iter().map(|&score| (score, false)));
    all.sort_by(|left, right| right.0.total_cmp(&left.0));
    let (mut above, mut sum) = (0.0, 0.0);
    for run in all.chunk_by(|left, right| left.0 == right.0) {
        let own = run.iter().filter(|entry| entry.1).count() as f64;
        let others = run.len() as f64 - own;
        sum += own * (above + others / 2.0);
        above += others;
    }
    sum / (anomalies.len() as f64 * ordinary.len() as f64)
}

/// A training corpus with anomalies: words that nobody else has, and words of another role.
struct Injected {
    triples: Triples,
    rare: Vec<(u64, u32)>,
    moved: Vec<(u64, u32)>,
}

fn inject(drawn: &Drawn) -> Injected {
    let mut rng = Rng(9);
    let mut triples = drawn.train.clone();
    let documents: Vec<u64> = drawn.train.iter().map(|triple| triple.0).collect();
    let (mut rare, mut moved) = (Vec::new(), Vec::new());
    for index in 0..150 {
        let document = documents[rng.below(documents.len())];
        rare.push((document, u32::try_from(VOCABULARY + index).unwrap()));
        // The most typical word of the topic that this document uses least.
        let own: Vec<u32> = drawn
            .train
            .iter()
            .filter(|triple| triple.0 == document)
            .map(|triple| triple.1)
            .collect();
        let share = |topic: &Vec<f64>| {
            own.iter()
                .map(|&word| topic[word as usize].max(1e-9).ln())
                .sum::<f64>()
        };
        let far = drawn
            .topics
            .iter()
            .min_by(|left, right| share(left).total_cmp(&share(right)))
            .unwrap();
        let typical = (0..VOCABULARY)
            .max_by(|&left, &right| far[left].total_cmp(&far[right]))
            .unwrap();
        let word = u32::try_from(typical).unwrap();
        if !own.contains(&word) {
            moved.push((document, word));
        }
    }
    triples.extend(
        rare.iter()
            .chain(&moved)
            .map(|&(document, word)| (document, word, 1)),
    );
    Injected {
        triples,
        rare,
        moved,
    }
}

#[test]
fn injected_anomalies_score_low() {
    let Injected {
        triples,
        rare,
        moved,
    } = inject(&draw(3000));
    let corpus = Corpus::try_new(triples, VOCABULARY + 150).unwrap();
    let params = ONLINE.check().unwrap();
    let fit = lda::fit(&corpus, &params, threads(2), |_| ());
    let mut p = Vec::new();
    fit.scores(&corpus, &params, threads(2), |score| {
        p.push(f64::from(score));
    });
    let mut tokens_of_word = vec![0.0; VOCABULARY + 150];
    corpus
        .pairs()
        .for_each(|(_, word, count)| tokens_of_word[word as usize] += f64::from(count));
    let mut scores = [(); 4].map(|()| Vec::new());
    for ((document, word, _), p) in corpus.pairs().zip(p) {
        let pmi = p / tokens_of_word[word as usize];
        let target = if rare.contains(&(document, word)) {
            scores[0].push(p);
            continue;
        } else if moved.contains(&(document, word)) {
            1
        } else {
            scores[2].push(p);
            3
        };
        scores[target].push(pmi);
    }
    let [rare_p, moved_pmi, ordinary_p, ordinary_pmi] = scores;
    let (by_p, by_pmi) = (
        auroc_low(&rare_p, &ordinary_p),
        auroc_low(&moved_pmi, &ordinary_pmi),
    );
    assert!(moved_pmi.len() > 50);
    assert!(by_p > 0.95, "rare words by p: {by_p}");
    assert!(by_pmi > 0.72, "words of another role by PMI: {by_pmi}");
}

/// E-steps by bytes, in tasks of a few shards that end in any order, as workers do them.
struct ByBytes {
    shards: Vec<Vec<u8>>,
}

impl lda::Workers for ByBytes {
    type Error = lda::Damaged;

    fn e_step(
        &self,
        shards: &[u32],
        topics: &lda::Topics,
        step: lda::EStep,
    ) -> Result<lda::Sums, lda::Damaged> {
        let topics = lda::Topics::of_bytes(&topics.to_bytes())?;
        let mut total = lda::Sums {
            cells: vec![0.0; topics.words().len() * topics.topics()],
            likelihoods: vec![[0.0; 2]; shards.len()],
        };
        let places: Vec<(usize, &u32)> = shards.iter().enumerate().collect();
        for task in places.chunks(3).rev() {
            let read = |(_, shard): &(usize, &u32)| {
                let bytes = &self.shards[**shard as usize];
                lda::ShardData::of_bytes(bytes)
            };
            let mut sums = lda::Sums::none(&topics);
            for shard in task {
                sums.fold(&read(shard)?, &topics, step)?;
            }
            let cells = total.cells.iter_mut().zip(sums.cells);
            cells.for_each(|(cell, value)| *cell += value);
            for ((place, _), likelihoods) in task.iter().zip(sums.likelihoods) {
                total.likelihoods[*place] = likelihoods;
            }
        }
        Ok(total)
    }

    fn scores(&self, by: &lda::ScoreBy, sink: &mut dyn FnMut(f32)) -> Result<(), lda::Damaged> {
        let table = |topics: &lda::Topics| lda::Topics::of_bytes(&topics.to_bytes());
        let (smooth, plain) = (table(&by.smooth)?, table(&by.plain)?);
        for bytes in &self.shards {
            let shard = lda::ShardData::of_bytes(bytes)?;
            let scores = shard.scores((&smooth, &plain), by.document_pseudo_count)?;
            scores.into_iter().for_each(&mut *sink);
        }
        Ok(())
    }
}

#[test]
fn workers_give_the_bits_of_threads() {
    let mut triples = draw(9_000).train;
    let corpus = Corpus::try_new(triples.clone(), VOCABULARY).unwrap();
    same_bits(&corpus, &[1, 5, 20]);
    // As many tokens as are summed in multiples of 2^−20: their sums have no bit to spare.
    let times = u32::try_from(u64::from(u32::MAX) / corpus.tokens()).unwrap();
    triples.iter_mut().for_each(|(.., count)| *count *= times);
    same_bits(
        &Corpus::try_new(triples.clone(), VOCABULARY).unwrap(),
        &[1, 5],
    );
    // More than that: their sums are as exact, in larger parts.
    triples.iter_mut().for_each(|(.., count)| {
        *count = count.saturating_mul(1000);
    });
    let corpus = Corpus::try_new(triples, VOCABULARY).unwrap();
    assert!(corpus.tokens() > 100 << 32, "{}", corpus.tokens());
    same_bits(&corpus, &[1, 5]);
}

fn same_bits(corpus: &Corpus, topics: &[usize]) {
    let shards: Vec<Vec<u8>> = corpus.packed().collect();
    assert!(shards.len() > 7, "{}", shards.len());
    let workers = ByBytes { shards };
    for &topics in topics {
        let params = LdaParams {
            topics,
            iterations: 5,
            ..ONLINE
        };
        let params = params.check().unwrap();
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let on_threads = lda::fit(corpus, &params, threads(2), |epoch| here.push(epoch));
        let on = (threads(2), Some(&workers));
        let on_workers = lda::fit_on(corpus, &params, on, |epoch| there.push(epoch)).unwrap();
        assert_eq!(here, there);
        assert!(on_threads.model == on_workers.model, "{topics} topics");
        let one = on_threads.over(corpus, &params, threads(2)).model;
        let other = on_workers.over_on(corpus, &params, &workers).unwrap().model;
        assert!(one == other, "{topics} topics");
        let (mut here, mut there) = (Vec::new(), Vec::new());
        on_threads.scores(corpus, &params, threads(2), |score| here.push(score));
        let scored = on_workers.scores_on(&params, &workers, |score| there.push(score));
        scored.unwrap();
        assert!(here == there && !here.is_empty(), "{topics} topics");
    }
}

#[test]
fn damaged_shards_and_topics_are_refused() {
    let corpus = Corpus::try_new(vec![(1, 0, 2), (1, 2, 1), (9, 1, 1)], 3).unwrap();
    let bytes = corpus.packed().next().unwrap();
    assert!(lda::ShardData::of_bytes(&bytes).is_ok());
    for end in 0..bytes.len() {
        assert!(lda::ShardData::of_bytes(&bytes[..end]).is_err(), "{end}");
    }
    // Sizes, starts and words that lead elsewhere; counts may be any, and ids are looked for in a table.
    for at in 0..4 * 9 {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x40;
        assert!(lda::ShardData::of_bytes(&wrong).is_err(), "{at}");
    }
    let numbers = |numbers: &[u32]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    };
    let table = numbers(&[2, 2, 0, 2, 0, 0, 0, 0]);
    let topics = lda::Topics::of_bytes(&table).unwrap();
    assert_eq!(topics.words(), [0, 2]);
    let step = lda::EStep {
        tokens: 4,
        document_pseudo_count: 0.1,
        weight: 1.0,
    };
    let shard = lda::ShardData::of_bytes(&bytes).unwrap();
    let folded = lda::Sums::none(&topics).fold(&shard, &topics, step);
    assert!(folded.is_err(), "word 1 has no row");
    for wrong in [
        &table[..31],
        &table[..28],
        &[],
        &numbers(&[2, 2, 2, 0, 0, 0, 0, 0]),
        &numbers(&[2, 2, 1, 1, 0, 0, 0, 0]),
        &numbers(&[0, 0]),
        &[255; 8],
    ] {
        assert!(lda::Topics::of_bytes(wrong).is_err(), "{wrong:?}");
    }
}
