//! Tells the catalog of folders that have a new content.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::catalog;
use crate::catalog::Change;
use crate::catalog::Engine;
use crate::catalog::Metastore;
use crate::catalog::MetastoreError;
use crate::config::CatalogKind;
use crate::config::Config;
use crate::job::Partition;
use crate::job::RunError;
use crate::step::ingest;
use crate::step::suspicious;
use crate::store::Listener;
use crate::store::Manifest;
use crate::store::Publication;
use crate::store::Store;
use crate::store::StoreError;
use crate::table::catalog::Table;
use crate::table::catalog::flow_tables;
use crate::table::hive::Day;
use crate::table::hive::hour_dir;

/// Who tells the catalog, by the configuration.
pub(super) struct Announcer {
    database: String,
    /// `None` where statements are written.
    metastore: Option<Metastore>,
}

impl Announcer {
    /// `None` where nobody is told.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, MetastoreError> {
        let metastore = match config.catalog.kind {
            CatalogKind::None => return Ok(None),
            CatalogKind::Script => None,
            CatalogKind::Metastore => Some(Metastore::open(config)?),
        };
        Ok(Some(Self {
            database: config.catalog.database.clone(),
            metastore,
        }))
    }
}

/// Makes sure that the metastore answers and has our tables, before any work is done for it.
pub(super) fn check_tables(store: &Store, config: &Config) -> Result<(), RunError> {
    if config.catalog.kind != CatalogKind::Metastore {
        return Ok(());
    }
    let metastore = Metastore::open(config)?;
    let tables = flow_tables(store.root());
    let compared = metastore.compare(&tables, &|path| store.url(path))?;
    for (table, compared) in tables.iter().zip(compared) {
        let name = format!("{}.{}", config.catalog.database, table.name);
        let what = match compared {
            None => "is missing in the metastore; klieg setup makes it".to_owned(),
            Some(differences) if differences.is_empty() => continue,
            Some(differences) => format!(
                "is another table in the metastore: {}; choose another catalog.database, or mend the table",
                differences.join("; ")
            ),
        };
        return Err(RunError::Table { name, what });
    }
    Ok(())
}

impl Listener for Announcer {
    fn published(&self, store: &Store, publication: &Publication<'_>) -> Result<(), StoreError> {
        let changes = changes(store, publication)?;
        if changes.is_empty() {
            return Ok(());
        }
        let Some(metastore) = &self.metastore else {
            return write_statements(store, publication, &self.database, &changes);
        };
        metastore.publish(&changes).map_err(|error| match error {
            MetastoreError::Call { uri, error } => StoreError { path: uri, error },
            other => StoreError {
                path: metastore.uris(),
                error: std::io::Error::other(other.to_string()),
            },
        })
    }
}

/// What a publication changes in tables, by what is in its folders.
fn changes(store: &Store, publication: &Publication<'_>) -> Result<Vec<Change>, StoreError> {
    let Ok(partition) = publication.key.parse::<Partition>() else {
        return Ok(Vec::new());
    };
    let [raw, scores, groups] = flow_tables(store.root());
    let mut changes = Vec::new();
    for (name, target) in publication.folders {
        let hour = ingest::staged_hour(name);
        let table = match name.as_str() {
            ingest::NAME => &raw,
            suspicious::FLOW_SCORES => &scores,
            suspicious::FLOW_GROUPS => &groups,
            _ if hour.is_some() => &raw,
            _ => continue,
        };
        let Some(manifest) = Manifest::read(store, target)? else {
            continue;
        };
        let (folder, parts) = match (hour, table.is_hourly) {
            (None, true) => (target.clone(), hours(&manifest)),
            (None, false) => (
                target.clone(),
                BTreeMap::from([(None, whole(name, &manifest))]),
            ),
            (Some(_), _) => {
                let day = target.parent().unwrap_or(target).to_path_buf();
                (day, BTreeMap::from([(hour, whole(name, &manifest))]))
            }
        };
        let mut change = change(
            table,
            partition.period.day,
            &parts,
            ((store, &folder), publication.run),
        );
        if hour.is_some() {
            change.gone.clear();
        }
        changes.push(change);
    }
    Ok(changes)
}

/// What is in a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    rows: u64,
    files: u64,
    bytes: u64,
}

/// Hours of the raw table that have rows.
fn hours(manifest: &Manifest) -> BTreeMap<Option<u8>, Content> {
    let mut hours: BTreeMap<_, Content> = BTreeMap::new();
    let parts = manifest.report["parts"].as_array();
    for part in parts.into_iter().flatten() {
        let path = part["path"].as_str().unwrap_or_default();
        let hour = path
            .strip_prefix("h=")
            .and_then(|rest| rest.split('/').next());
        let Some(hour) = hour.and_then(|hour| hour.parse().ok()) else {
            continue;
        };
        let number = |key: &str| part[key].as_u64().unwrap_or(0);
        let content = hours.entry(Some(hour)).or_default();
        content.rows += number("rows");
        content.bytes += number("bytes");
        content.files += 1;
    }
    hours
}

/// The whole folder; its manifest is shared by all folders of the step.
fn whole(name: &str, manifest: &Manifest) -> Content {
    let rows = match name {
        suspicious::FLOW_SCORES => &manifest.report["flows_listed"],
        suspicious::FLOW_GROUPS => &manifest.report["groups_listed"],
        _ => &Value::Null,
    };
    Content {
        rows: rows.as_u64().unwrap_or(manifest.rows),
        files: manifest.files.len() as u64,
        bytes: manifest.bytes(),
    }
}

fn change(
    table: &Table,
    day: Day,
    parts: &BTreeMap<Option<u8>, Content>,
    ((store, folder), run): ((&Store, &Path), &str),
) -> Change {
    let values = |hour: Option<u8>| {
        let values = day.numbers().into_iter();
        values.chain(hour.map(u32::from)).collect::<Vec<_>>()
    };
    let there = parts.iter().map(|(hour, content)| {
        let folder = match hour {
            Some(hour) => folder.join(hour_dir(*hour)),
            None => folder.to_path_buf(),
        };
        catalog::Partition {
            values: values(*hour),
            location: store.url(&folder),
            rows: content.rows,
            files: content.files,
            bytes: content.bytes,
            run: run.to_owned(),
        }
    });
    let hours = (0..24).filter(|hour| table.is_hourly && !parts.contains_key(&Some(*hour)));
    Change {
        there: there.collect(),
        gone: hours.map(|hour| values(Some(hour))).collect(),
        table: table.clone(),
    }
}

/// Writes the statements of each engine and table.
fn write_statements(
    store: &Store,
    publication: &Publication<'_>,
    database: &str,
    changes: &[Change],
) -> Result<(), StoreError> {
    let folder = store.work_area().join("catalog").join(publication.run);
    let files = store.files();
    files.make_folder(&folder).map_err(store.at(&folder))?;
    for engine in Engine::ALL {
        for change in changes {
            let statements = catalog::statements(engine, database, change);
            let text: String = statements
                .iter()
                .map(|statement| format!("{statement};\n"))
                .collect();
            let (key, table) = (publication.key, change.table.name);
            let path = folder.join(format!("{key}.{table}.{}.sql", engine.name()));
            let put = files.put(&path, text.as_bytes());
            put.map_err(store.at(&path))?;
        }
    }
    Ok(())
}
