//! The raw table of a day to its suspicious connections: Spot's scores of flows, and the list of groups.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use serde_json::json;

use crate::column::Column;
use crate::column::Room;
use crate::config::Config;
use crate::detect::corpus::DayCorpus;
use crate::detect::corpus::Group;
use crate::detect::models::ModelReport;
use crate::detect::models::Scores;
use crate::detect::ranking;
use crate::detect::ranking::Ranking;
use crate::detect::reason;
use crate::detect::reason::Explainer;
use crate::detect::reason::Reason;
use crate::engine::probe;
use crate::engine::probe::Found;
use crate::engine::probe::ProbePair;
use crate::engine::words::Documents;
use crate::engine::words::Pair;
use crate::step;
use crate::step::Context;
use crate::step::Outcome;
use crate::step::Severity;
use crate::step::StepError;
use crate::step::day_table::DayTable;
use crate::step::lookup::count;
use crate::step::lookup::probe_flows;
use crate::step::outputs::staged_files;
use crate::step::outputs::write_results;
use crate::step::outputs::write_table;
use crate::step::training::Trained;
use crate::step::training::train;
use crate::store::Manifest;
use crate::store::Places;
use crate::store::Store;
use crate::store::fingerprint;
use crate::table::hive::Day;
use crate::table::hive::Layout;
use crate::table::suspicious::GroupRow;
use crate::table::suspicious::groups_batch;
use crate::table::suspicious::scores_batch;
use crate::word::flow::FlowWord;

/// Name of the step.
pub const NAME: &str = "suspicious";
/// Names of the staged folders.
const SCORES: &str = "scores";
/// Name of the staged folder of Spot's scores.
pub const FLOW_SCORES: &str = "flow_scores";
/// Name of the staged folder of the list.
pub const FLOW_GROUPS: &str = "flow_groups";
pub(super) const MODEL: &str = "model";
/// Spot's text results.
const RESULTS_FILE: &str = "flow_results.csv";

/// The table of a day and what the results are made of.
pub(super) struct Source {
    pub(super) files: Vec<String>,
    fingerprint: String,
    pub(super) rows: u64,
    missing_hours: Vec<u8>,
}

fn source(config: &Config, store: &Store, layout: &Layout, day: Day) -> Result<Source, StepError> {
    let Some(table) = DayTable::read(store, layout, day)? else {
        return Err(StepError::NoInput(format!(
            "{}: the table `flow` has no complete partition of {}; run the step ingest first",
            store.url(&layout.raw(day)),
            day
        )));
    };
    let files = table.files.iter();
    let files = files.map(|path| store.plan_url(path)).collect();
    let settings = config.texts.iter();
    let settings = settings.filter(|(key, _)| key.starts_with("suspicious.") || *key == "seed");
    let settings = settings.map(|(key, value)| format!("{key}={value}"));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let parts: Vec<_> = settings
        .chain([version, table.fingerprint.clone()])
        .collect();
    Ok(Source {
        files,
        fingerprint: fingerprint(parts.iter().map(String::as_str)),
        rows: table.rows,
        missing_hours: table.missing_hours(),
    })
}

/// Returns what is published where it is of the day's table and these settings; needs no lock.
///
/// # Errors
/// There is no table, or something cannot be looked at.
pub fn up_to_date(
    config: &Config,
    store: &Store,
    layout: &Layout,
    day: Day,
) -> Result<Option<Outcome>, StepError> {
    let table = source(config, store, layout, day)?;
    let places = Places::read(store, &layout.key(day))?;
    let folders = folders(&targets(layout, day), &places);
    let current = current(store, &table, &folders)?;
    Ok(current.map(|manifest| outcome(false, manifest, store, &folders)))
}

/// Returns the manifest of the first folder where all folders are up to date.
fn current(
    store: &Store,
    table: &Source,
    folders: &[PathBuf],
) -> Result<Option<Manifest>, StepError> {
    let mut first = None;
    for folder in folders {
        let manifest = Manifest::read(store, folder)?;
        let Some(manifest) = manifest.filter(|own| own.fingerprint == table.fingerprint) else {
            return Ok(None);
        };
        first.get_or_insert(manifest);
    }
    Ok(first)
}

/// Finds and publishes the suspicious connections of a day.
///
/// # Errors
/// No table, memory, or the file system.
pub async fn run(context: &Context<'_>) -> Result<Outcome, StepError> {
    let Context {
        config,
        layout,
        period,
        ..
    } = *context;
    let (store, day) = (context.store, period.day);
    if !context.redo
        && let Some(current) = up_to_date(config, store, layout, day)?
    {
        step::tell_up_to_date(context.events, period, &current);
        return Ok(current);
    }
    let table = source(config, store, layout, day)?;
    let targets = targets(layout, day);
    if !table.missing_hours.is_empty() {
        let hours = table.missing_hours.iter().map(ToString::to_string);
        let hours = hours.collect::<Vec<_>>().join(", ");
        let text = format!("suspicious: hours {hours} of {day} are not published");
        context.events.tell(Severity::Warning, &text);
    }
    // The other half is for what is not a column, above all the topics of models at work.
    let room = Room::new(Path::new(&config.work_dir), config.memory_bytes / 2);
    let mut documents = count((context, &room), &table).await?;
    let pairs = std::mem::replace(&mut documents.pairs, Column::new(&room));
    let analysis = tokio::task::block_in_place(|| Analysis::run(context, pairs))?;
    let lookup = (analysis.pairs(), analysis.limit);
    let found = probe_flows(context, &table, lookup).await?;
    let rows = analysis.rows(&found);
    let report = analysis.report(&documents, &found);
    let manifest = write(context, &table, &rows, &found, report)?;
    let mut staged = Vec::with_capacity(targets.len());
    for (name, target) in &targets {
        let files = staged_files(&context.staging.folder(name)?)?;
        let own = Manifest {
            files,
            ..manifest.clone()
        };
        staged.push((*name, target.as_path(), own));
    }
    let done = context.staging.publish(context.lock, &staged)?;
    let published = folders(&targets, &done.places);
    context.events.line(&format!(
        "suspicious: {} flows scored lowest, {} groups of {} ranked; published in {}{}",
        found.flows.len(),
        rows.len(),
        analysis.corpus.groups.len(),
        store.url(&published[0]),
        step::absence(&done),
    ));
    let mut outcome = outcome(true, manifest, store, &published);
    // Times differ from run to run and stay out of what is published.
    outcome.report["models"] = json!(analysis.models);
    outcome.note(&done, context.work);
    Ok(outcome)
}

/// Returns the folders of a day's results with the names under which they are staged; the first is that of the scores.
#[must_use]
pub fn targets(layout: &Layout, day: Day) -> Vec<(&'static str, PathBuf)> {
    vec![
        (SCORES, layout.scores(day)),
        (FLOW_SCORES, layout.result("suspicious", day)),
        (FLOW_GROUPS, layout.result("groups", day)),
        (MODEL, layout.model(day)),
    ]
}

/// Where the results lie, in the order of their targets.
fn folders(targets: &[(&'static str, PathBuf)], places: &Places) -> Vec<PathBuf> {
    targets
        .iter()
        .map(|(_, target)| places.of(target))
        .collect()
}

fn outcome(published: bool, manifest: Manifest, store: &Store, folders: &[PathBuf]) -> Outcome {
    Outcome {
        step: NAME,
        published,
        seconds: 0.0,
        bytes: manifest.bytes(),
        rows: manifest.rows,
        outputs: folders.iter().map(|folder| store.url(folder)).collect(),
        report: manifest.report,
    }
}

/// Models, scores and orders of a day.
struct Analysis {
    corpus: DayCorpus,
    scores: Scores,
    ranking: Ranking,
    /// Groups of the table, each once.
    chosen: Vec<u32>,
    reasons: Vec<Reason>,
    models: Vec<ModelReport>,
    has_model: bool,
    groups: usize,
    limit: Option<usize>,
    threshold: f64,
}

impl Analysis {
    fn run(context: &Context<'_>, pairs: Column<Pair>) -> Result<Self, StepError> {
        let settings = &context.config.suspicious;
        let corpus = DayCorpus::try_new(&pairs, pairs.room())?;
        // Models need the room.
        drop(pairs);
        let Trained {
            scores,
            models,
            first,
        } = train(context, &corpus)?;
        context.events.line("suspicious: ranking");
        let half_b = if settings.has_model {
            settings.half_b
        } else {
            0.0
        };
        let ranking = ranking::rank(&corpus, &scores, half_b, settings.groups)?;
        let chosen = chosen(&ranking, settings.groups);
        let group = |&index: &u32| corpus.groups[index as usize];
        let groups: Vec<Group> = chosen.iter().map(group).collect();
        let presence = corpus.counts.presence()?;
        let model = first.as_ref().map(|(fit, params)| (fit, &presence, params));
        let reasons = Explainer::new(&corpus, model).explain(&groups);
        Ok(Self {
            scores,
            ranking,
            chosen,
            reasons,
            models,
            has_model: settings.has_model,
            groups: settings.groups,
            limit: settings.max_results,
            threshold: settings.threshold,
            corpus,
        })
    }

    /// Pairs below the bound of Spot's list, and chosen groups, in order.
    fn pairs(&self) -> Vec<ProbePair> {
        let by_p = &self.ranking.by_p;
        let lowest = ranking::lowest(&self.corpus, &self.scores, by_p, self.limit, self.threshold);
        let mut pairs: BTreeMap<u32, ProbePair> = BTreeMap::new();
        let pair = |index: u32| {
            let group = &self.corpus.groups[index as usize];
            ProbePair {
                ip: group.ip,
                word: self.corpus.words[group.word as usize],
                score: None,
                group: None,
            }
        };
        for &index in &by_p[..lowest] {
            let entry = pairs.entry(index).or_insert_with(|| pair(index));
            entry.score = Some(self.scores.tokens[index as usize]);
        }
        for (number, &index) in (0..).zip(&self.chosen) {
            pairs.entry(index).or_insert_with(|| pair(index)).group = Some(number);
        }
        let mut pairs: Vec<_> = pairs.into_values().collect();
        pairs.sort_unstable_by_key(|pair| (pair.ip, pair.word));
        pairs
    }

    /// Rows of `flow_groups`: those of the list by rank, then the others in the order of A, B, p.
    fn rows(&self, found: &Found) -> Vec<GroupRow> {
        let places = |order: &[u32]| -> BTreeMap<u32, i32> {
            let limited = order.iter().take(self.groups);
            limited.copied().zip(1..).collect()
        };
        let orders = [
            &self.ranking.list[..],
            &self.ranking.half_a,
            &self.ranking.half_b,
            &self.ranking.by_p,
        ]
        .map(places);
        let tokens: u64 = self.corpus.flows_of_word.iter().sum();
        let rows = self.chosen.iter().zip(&self.reasons).enumerate();
        rows.map(|(number, (&index, reason))| {
            let flows = u32::try_from(number)
                .ok()
                .and_then(|number| found.groups.get(&number));
            self.row(index, reason, &orders, (flows, tokens))
        })
        .collect()
    }

    fn row(
        &self,
        index: u32,
        reason: &Reason,
        orders: &[BTreeMap<u32, i32>; 4],
        (flows, tokens): (Option<&probe::GroupFlows>, u64),
    ) -> GroupRow {
        let group = &self.corpus.groups[index as usize];
        let word = FlowWord::from_bits(self.corpus.words[group.word as usize]);
        let (p, q) = (
            self.scores.presence[index as usize],
            self.scores.tokens[index as usize],
        );
        let [list, a, b, by_p] = [0, 1, 2, 3].map(|order| orders[order].get(&index).copied());
        let score = |place: Option<i32>, scores: &[f64]| {
            let place = usize::try_from(place?).ok()?.checked_sub(1)?;
            scores.get(place).copied()
        };
        let second = |time: i64| {
            DateTime::from_timestamp(time, 0)
                .map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string())
        };
        let pmi = ranking::pmi(q, self.corpus.flows_of_word[group.word as usize], tokens);
        let half = list.and_then(|place| {
            self.ranking
                .halves
                .get(usize::try_from(place).ok()?.checked_sub(1)?)
                .copied()
        });
        GroupRow {
            rank: list,
            half,
            ranks: [a, b, by_p],
            ip: reason::ip(group).to_string(),
            word: word.to_string(),
            flows: i64::from(group.flows),
            times: [
                flows.and_then(|flows| second(flows.first_s)),
                flows.and_then(|flows| second(flows.last_s)),
            ],
            loud: [
                Some(p),
                Some(ranking::bits(p)),
                score(a, &self.ranking.score_a),
            ],
            quiet: [
                self.has_model.then_some(q),
                self.has_model.then_some(pmi),
                score(b, &self.ranking.score_b),
            ],
            hosts: [
                reason.hosts,
                u32::try_from(reason.hosts_total).unwrap_or(u32::MAX),
            ]
            .map(|n| i32::try_from(n).unwrap_or(i32::MAX)),
            feature: (reason.feature.0.name(), reason.feature.1),
            usual: (
                reason.usual.0.to_string(),
                i64::try_from(reason.usual.1).unwrap_or(i64::MAX),
                i64::try_from(reason.flows_of_ip).unwrap_or(i64::MAX),
            ),
            reason: reason.text(word, group.flows, ranking::bits(p)),
            sample: flows.map(|flows| flows.sample.clone()),
        }
    }

    fn report(&self, documents: &Documents, found: &Found) -> serde_json::Value {
        json!({
            "flows": documents.flows,
            "excluded": documents.excluded,
            "groups": self.corpus.groups.len(),
            "hosts": self.corpus.hosts(),
            "vocabulary": self.corpus.words.len(),
            "models": self.models.iter().map(ModelReport::stable).collect::<Vec<_>>(),
            "flows_listed": found.flows.len(),
            "groups_listed": self.chosen.len(),
        })
    }
}

/// The first `limit` groups of every order, those of the list first.
fn chosen(ranking: &Ranking, limit: usize) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    let orders = [
        &ranking.list[..],
        &ranking.half_a,
        &ranking.half_b,
        &ranking.by_p,
    ];
    let all = orders
        .into_iter()
        .flat_map(|order| order.iter().take(limit).copied());
    all.filter(|&group| seen.insert(group)).collect()
}

fn write(
    context: &Context<'_>,
    table: &Source,
    rows: &[GroupRow],
    found: &Found,
    report: serde_json::Value,
) -> Result<Manifest, StepError> {
    let results = context.staging.folder(SCORES)?.join(RESULTS_FILE);
    write_results(&results, found).map_err(|error| StepError::Io {
        path: results.display().to_string(),
        error,
    })?;
    let scores = scores_batch(&found.flows);
    write_table(&context.staging.folder(FLOW_SCORES)?, scores)?;
    write_table(&context.staging.folder(FLOW_GROUPS)?, groups_batch(rows))?;
    Ok(Manifest {
        step: NAME.to_owned(),
        fingerprint: table.fingerprint.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        files: Vec::new(),
        rows: rows.len() as u64,
        report,
    })
}
