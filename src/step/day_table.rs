//! What is published of a day of the raw table: the day as one, hours of it since then, or hours alone.
//!
//! ```text
//! y=/m=/d=/_manifest.json        the day as it was published, with the files of all its hours
//!         /h=7/_manifest.json    an hour that was published alone, since then: it takes the place of the day's hour
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use crate::parallel;
use crate::store::AT_ONCE;
use crate::store::Manifest;
use crate::store::Places;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::fingerprint;
use crate::table::hive::Day;
use crate::table::hive::Layout;
use crate::table::hive::hour_dir;

/// Table files of a day.
#[derive(Clone, Debug)]
pub struct DayTable {
    /// By hour.
    pub files: Vec<PathBuf>,
    /// Changes with every publication of the day or of an hour.
    pub fingerprint: String,
    /// Rows.
    pub rows: u64,
    /// Hours that were published alone; empty where the day was published as one.
    pub hours: Vec<u8>,
    /// The manifest of the day that is there as one.
    pub manifest: Option<Manifest>,
    /// True where other hours are those of the day that was published as one before.
    has_rest: bool,
}

impl DayTable {
    /// Reads what is published; `None` where nothing is, or not by us.
    ///
    /// # Errors
    /// A folder or file cannot be looked at.
    pub fn read(store: &Store, layout: &Layout, day: Day) -> Result<Option<Self>, StoreError> {
        let places = Places::read(store, &layout.key(day))?;
        let target = layout.raw(day);
        let hours = published_hours(store, &target, &places)?;
        let folder = places.of(&target);
        if hours.is_empty() {
            let manifest = Manifest::read(store, &folder)?;
            return Ok(manifest.map(|manifest| Self::of_day(manifest, &folder)));
        }
        let mut table = Self {
            files: Vec::new(),
            fingerprint: String::new(),
            rows: 0,
            hours: hours.keys().copied().collect(),
            manifest: None,
            has_rest: false,
        };
        let (mut files, mut prints) = (BTreeMap::new(), Vec::new());
        if let Some(day) = Manifest::parse(store, &folder)? {
            table.add_rest_of_day(&day, &folder, &mut files);
            prints.push(day.fingerprint);
        }
        for (hour, manifest) in hours {
            let name = hour_dir(hour);
            let folder = places.of(&target.join(&name));
            for (file, _) in &manifest.files {
                files.insert(format!("{name}/{file}"), folder.join(file));
            }
            table.rows += manifest.rows;
            prints.push(manifest.fingerprint);
        }
        table.files = files.into_values().collect();
        table.fingerprint = fingerprint(prints.iter().map(String::as_str));
        Ok(Some(table))
    }

    fn of_day(manifest: Manifest, folder: &Path) -> Self {
        let files = manifest.files.iter();
        Self {
            files: files.map(|(name, _)| folder.join(name)).collect(),
            fingerprint: manifest.fingerprint.clone(),
            rows: manifest.rows,
            hours: Vec::new(),
            manifest: Some(manifest),
            has_rest: true,
        }
    }

    /// Hours of the day that were not published alone since.
    fn add_rest_of_day(
        &mut self,
        manifest: &Manifest,
        folder: &Path,
        files: &mut BTreeMap<String, PathBuf>,
    ) {
        let parts = manifest.report["parts"].as_array();
        for part in parts.into_iter().flatten() {
            let path = part["path"].as_str().unwrap_or_default();
            let is_replaced = self
                .hours
                .iter()
                .any(|hour| path.starts_with(&format!("{}/", hour_dir(*hour))));
            if !is_replaced {
                self.has_rest = true;
                files.insert(path.to_owned(), folder.join(path));
                self.rows += part["rows"].as_u64().unwrap_or(0);
            }
        }
    }

    /// Hours that nobody has published, where the day was never published as one.
    #[must_use]
    pub fn missing_hours(&self) -> Vec<u8> {
        if self.has_rest {
            return Vec::new();
        }
        (0..24).filter(|hour| !self.hours.contains(hour)).collect()
    }
}

/// Manifests of hours that were published alone.
fn published_hours(
    store: &Store,
    target: &Path,
    places: &Places,
) -> Result<BTreeMap<u8, Manifest>, StoreError> {
    let folder = places.of(target);
    let entries = store.list(&folder).map_err(store.at(&folder))?;
    let names: Vec<String> = entries.iter().map(|entry| entry.name()).collect();
    let is_there = |name: &String| names.contains(name) || places.names(&target.join(name));
    let hours: Vec<u8> = (0..24).filter(|hour| is_there(&hour_dir(*hour))).collect();
    let manifests = parallel::map(AT_ONCE, &hours, |hour| {
        Manifest::read(store, &places.of(&target.join(hour_dir(*hour))))
    });
    let mut published = BTreeMap::new();
    for (hour, manifest) in hours.into_iter().zip(manifests) {
        if let Some(manifest) = manifest? {
            published.insert(hour, manifest);
        }
    }
    Ok(published)
}
