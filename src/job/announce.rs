//! Tells the catalog of folders that have a new content.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

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
    let compared = metastore.compare(&tables, &|path| store.uri(path))?;
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
    /// Adds hours that a day of the canonical layout has not had, while their folders are empty: all rows come at once when the day
    /// changes places.
    fn expected(
        &self,
        store: &Store,
        key: &str,
        folders: &[(String, PathBuf, PathBuf)],
    ) -> Result<(), StoreError> {
        let (Some(metastore), Ok(partition)) = (&self.metastore, key.parse::<Partition>()) else {
            return Ok(());
        };
        let day = partition.period.day;
        let [raw, ..] = flow_tables(store.root());
        for (name, staged, target) in folders {
            let is_there = store.files().status(target).map_err(store.at(target))?;
            if name != ingest::NAME || is_there.is_none() {
                continue;
            }
            let Some(manifest) = Manifest::parse(store, staged)? else {
                continue;
            };
            let has = |manifest: &Manifest, hour| Content::of_hour(manifest, hour).files > 0;
            let before = Manifest::parse(store, target)?;
            let is_known = |hour| before.as_ref().is_some_and(|before| has(before, hour));
            let hours = (0..24).filter(|hour| has(&manifest, *hour) && !is_known(*hour));
            let there = hours.map(|hour| catalog::Partition {
                values: values(day, Some(hour)),
                location: store.uri(&target.join(hour_dir(hour))),
                ..catalog::Partition::default()
            });
            let change = Change {
                table: raw.clone(),
                there: there.collect(),
                gone: Vec::new(),
                empty: None,
            };
            if change.there.is_empty() {
                continue;
            }
            metastore
                .add(&change)
                .map_err(|error| of_metastore(metastore, error))?;
        }
        Ok(())
    }

    fn published(&self, store: &Store, publication: &Publication<'_>) -> Result<(), StoreError> {
        let changes = changes(store, publication)?;
        if changes.is_empty() {
            return Ok(());
        }
        let Some(metastore) = &self.metastore else {
            return write_statements(store, publication, &self.database, &changes);
        };
        metastore
            .publish(&changes)
            .map_err(|error| of_metastore(metastore, error))
    }
}

fn of_metastore(metastore: &Metastore, error: MetastoreError) -> StoreError {
    match error {
        MetastoreError::Call { uri, error } => StoreError { path: uri, error },
        other => StoreError {
            path: metastore.uris(),
            error: std::io::Error::other(other.to_string()),
        },
    }
}

/// Values of the partition columns.
fn values(day: Day, hour: Option<u8>) -> Vec<u32> {
    let values = day.numbers().into_iter();
    values.chain(hour.map(u32::from)).collect()
}

/// What a publication changes in tables, by what is in its folders.
fn changes(store: &Store, publication: &Publication<'_>) -> Result<Vec<Change>, StoreError> {
    let Ok(partition) = publication.key.parse::<Partition>() else {
        return Ok(Vec::new());
    };
    let day = partition.period.day;
    let [raw, scores, groups] = flow_tables(store.root());
    let mut changes = Vec::new();
    for (name, target) in publication.folders {
        let hour = ingest::staged_hour(name);
        let (table, parts) = match name.as_str() {
            ingest::NAME => (&raw, hours(store, publication, target)?),
            suspicious::FLOW_SCORES => (&scores, whole(store, publication, (name, target))?),
            suspicious::FLOW_GROUPS => (&groups, whole(store, publication, (name, target))?),
            _ => match hour {
                Some(hour) => (&raw, one_hour(store, publication, (hour, target))?),
                None => continue,
            },
        };
        let Some(parts) = parts else {
            continue;
        };
        let change = change(table, day, &parts, (store, publication));
        let gone = change.gone.into_iter();
        // Of an hour that was published alone nothing is known of others.
        let gone = gone.filter(|_| hour.is_none()).collect();
        changes.push(Change { gone, ..change });
    }
    Ok(changes)
}

/// Hours, `None` for a whole day, with their canonical folders and what is in them.
type Parts = BTreeMap<Option<u8>, (PathBuf, Content)>;

/// What is in a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    rows: u64,
    files: u64,
    bytes: u64,
}

impl Content {
    fn of(manifest: &Manifest) -> Self {
        Self {
            rows: manifest.rows,
            files: manifest.files.len() as u64,
            bytes: manifest.bytes(),
        }
    }

    /// What the manifest of a day says of an hour.
    fn of_hour(manifest: &Manifest, hour: u8) -> Self {
        let mut content = Self::default();
        let parts = manifest.report["parts"].as_array();
        for part in parts.into_iter().flatten() {
            let path = part["path"].as_str().unwrap_or_default();
            if path.starts_with(&format!("{}/", hour_dir(hour))) {
                let number = |key: &str| part[key].as_u64().unwrap_or(0);
                content.rows += number("rows");
                content.bytes += number("bytes");
                content.files += 1;
            }
        }
        content
    }
}

/// Hours of a day of the raw table: those that have rows, all where they are versioned, since partitions that come and go are not
/// switched in one step with the others.
fn hours(
    store: &Store,
    publication: &Publication<'_>,
    target: &Path,
) -> Result<Option<Parts>, StoreError> {
    let places = publication.places;
    let Some(manifest) = Manifest::read(store, &places.of(target))? else {
        return Ok(None);
    };
    let mut parts = Parts::new();
    for hour in 0..24 {
        let folder = target.join(hour_dir(hour));
        let alone = match places.names(&folder) {
            true => Manifest::read(store, &places.of(&folder))?,
            false => None,
        };
        let of_day = || Content::of_hour(&manifest, hour);
        let content = alone.as_ref().map_or_else(of_day, Content::of);
        if content.files > 0 || store.is_versioned(target) {
            parts.insert(Some(hour), (folder, content));
        }
    }
    Ok(Some(parts))
}

/// An hour of the raw table: alone, or what the day has of it.
fn one_hour(
    store: &Store,
    publication: &Publication<'_>,
    (hour, target): (u8, &Path),
) -> Result<Option<Parts>, StoreError> {
    let places = publication.places;
    let content = match Manifest::read(store, &places.of(target))? {
        Some(alone) => Content::of(&alone),
        None => {
            let day = target.parent().unwrap_or(target);
            let Some(manifest) = Manifest::parse(store, &places.of(day))? else {
                return Ok(None);
            };
            Content::of_hour(&manifest, hour)
        }
    };
    Ok(Some(Parts::from([(
        Some(hour),
        (target.to_path_buf(), content),
    )])))
}

/// A day of a result table; its manifest is shared by all folders of the step.
fn whole(
    store: &Store,
    publication: &Publication<'_>,
    (name, target): (&str, &Path),
) -> Result<Option<Parts>, StoreError> {
    let Some(manifest) = Manifest::read(store, &publication.places.of(target))? else {
        return Ok(None);
    };
    let rows = match name {
        suspicious::FLOW_SCORES => &manifest.report["flows_listed"],
        _ => &manifest.report["groups_listed"],
    };
    let content = Content {
        rows: rows.as_u64().unwrap_or(manifest.rows),
        ..Content::of(&manifest)
    };
    Ok(Some(Parts::from([(None, (target.to_path_buf(), content))])))
}

fn change(
    table: &Table,
    day: Day,
    parts: &Parts,
    (store, publication): (&Store, &Publication<'_>),
) -> Change {
    let is_versioned = parts.values().any(|(folder, _)| store.is_versioned(folder));
    let there = parts.iter().map(|(hour, (target, content))| {
        let is_empty = is_versioned && content.files == 0;
        let folder = match is_empty {
            true => store.empty_version(),
            false => publication.places.of(target),
        };
        catalog::Partition {
            values: values(day, *hour),
            location: store.uri(&folder),
            rows: content.rows,
            files: content.files,
            bytes: content.bytes,
            run: publication.run.to_owned(),
        }
    });
    let hours = (0..24).filter(|hour| table.is_hourly && !parts.contains_key(&Some(*hour)));
    Change {
        there: there.collect(),
        gone: hours.map(|hour| values(day, Some(hour))).collect(),
        empty: is_versioned.then(|| store.uri(&store.empty_version())),
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
