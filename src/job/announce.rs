//! Tells catalogs of what a day has published.

use std::collections::BTreeSet;
use std::path::Path;

use crate::catalog;
use crate::catalog::Engine;
use crate::catalog::Published;
use crate::config::Config;
use crate::step::Events;
use crate::step::Outcome;
use crate::step::ingest;
use crate::step::suspicious;
use crate::store::Store;
use crate::store::StoreError;
use crate::table::catalog::flow_tables;
use crate::table::hive::Day;

/// Writes the statements of a day for each engine and says where they are; nothing where nothing is to be told.
pub(super) fn announce(
    store: &Store,
    config: &Config,
    (run, key, day): (&str, &str, Day),
    steps: &[Outcome],
    events: &dyn Events,
) -> Result<(), StoreError> {
    let has_published = |name: &str| {
        let mut steps = steps.iter();
        steps.any(|step| step.published && step.step == name)
    };
    let [raw, scores, groups] = flow_tables(store.root());
    let mut tables = Vec::new();
    if has_published(ingest::NAME) {
        tables.push(raw);
    }
    if has_published(suspicious::NAME) {
        tables.extend([scores, groups]);
    }
    if !config.catalog.has_script || tables.is_empty() {
        return Ok(());
    }
    let published = Published {
        day,
        hours: &hours(steps),
        url: &|path: &Path| store.url(path),
    };
    let folder = store.work_area().join("catalog").join(run);
    store
        .files()
        .make_folder(&folder)
        .map_err(store.at(&folder))?;
    for engine in Engine::ALL {
        let mut text = String::new();
        for table in &tables {
            let database = &config.catalog.database;
            for statement in catalog::partition(engine, database, table, &published) {
                text += &statement;
                text += ";\n";
            }
        }
        let path = folder.join(format!("{key}.{}.sql", engine.name()));
        let put = store.files().put(&path, text.as_bytes());
        put.map_err(store.at(&path))?;
    }
    let folder = store.url(&folder);
    events.line(&format!(
        "{day}: statements for the catalog are in {folder}"
    ));
    Ok(())
}

/// Hours of the raw table that have rows, by the folders of its files.
fn hours(steps: &[Outcome]) -> BTreeSet<u8> {
    let ingest = steps.iter().find(|step| step.step == ingest::NAME);
    let parts = ingest.and_then(|step| step.report["parts"].as_array());
    let paths = parts.into_iter().flatten();
    let paths = paths.filter_map(|part| part["path"].as_str());
    let hour = |path: &str| path.strip_prefix("h=")?.split('/').next()?.parse().ok();
    paths.filter_map(hour).collect()
}
