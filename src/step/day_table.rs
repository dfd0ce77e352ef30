//! What is published of a day of the raw table: the day as one, hours of it since then, or hours alone.
//!
//! ```text
//! y=/m=/d=/_manifest.json        the day as it was published, with the files of all its hours
//!         /h=7/_manifest.json    an hour that was published alone, since then: it takes the place of the day's hour
//! ```

use std::collections::BTreeMap;

use crate::parallel;
use crate::store::AT_ONCE;
use crate::store::Manifest;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::fingerprint;
use crate::table::hive::Day;
use crate::table::hive::Layout;
use crate::table::hive::hour_dir;

/// Table files of a day.
#[derive(Clone, Debug)]
pub struct DayTable {
    /// Below the folder of the day.
    pub files: Vec<String>,
    /// Changes with every publication of the day or of an hour.
    pub fingerprint: String,
    /// Rows.
    pub rows: u64,
    /// Hours that were published alone; empty where the day was published as one.
    pub hours: Vec<u8>,
    /// The manifest of the day that is there as one.
    pub manifest: Option<Manifest>,
}

impl DayTable {
    /// Reads what is published; `None` where nothing is, or not by us.
    ///
    /// # Errors
    /// A folder or file cannot be looked at.
    pub fn read(store: &Store, layout: &Layout, day: Day) -> Result<Option<Self>, StoreError> {
        let folder = layout.raw(day);
        let hours = published_hours(store, layout, day)?;
        if hours.is_empty() {
            return Ok(Manifest::read(store, &folder)?.map(Self::of_day));
        }
        let mut table = Self {
            files: Vec::new(),
            fingerprint: String::new(),
            rows: 0,
            hours: hours.keys().copied().collect(),
            manifest: None,
        };
        let mut prints = Vec::new();
        if let Some(day) = Manifest::parse(store, &folder)? {
            table.add_rest_of_day(&day);
            prints.push(day.fingerprint);
        }
        for (hour, manifest) in hours {
            let files = manifest.files.iter();
            let files = files.map(|(name, _)| format!("{}/{name}", hour_dir(hour)));
            table.files.extend(files);
            table.rows += manifest.rows;
            prints.push(manifest.fingerprint);
        }
        table.files.sort();
        table.fingerprint = fingerprint(prints.iter().map(String::as_str));
        Ok(Some(table))
    }

    fn of_day(manifest: Manifest) -> Self {
        let files = manifest.files.iter();
        Self {
            files: files.map(|(name, _)| name.clone()).collect(),
            fingerprint: manifest.fingerprint.clone(),
            rows: manifest.rows,
            hours: Vec::new(),
            manifest: Some(manifest),
        }
    }

    /// Hours of the day that were not published alone since.
    fn add_rest_of_day(&mut self, manifest: &Manifest) {
        let parts = manifest.report["parts"].as_array();
        for part in parts.into_iter().flatten() {
            let path = part["path"].as_str().unwrap_or_default();
            let is_replaced = self
                .hours
                .iter()
                .any(|hour| path.starts_with(&format!("{}/", hour_dir(*hour))));
            if !is_replaced {
                self.files.push(path.to_owned());
                self.rows += part["rows"].as_u64().unwrap_or(0);
            }
        }
    }

    /// Hours that nobody has published, where the day was never published as one.
    #[must_use]
    pub fn missing_hours(&self) -> Vec<u8> {
        if self.manifest.is_some() || self.files.iter().any(|file| !self.is_of_hours(file)) {
            return Vec::new();
        }
        (0..24).filter(|hour| !self.hours.contains(hour)).collect()
    }

    fn is_of_hours(&self, file: &str) -> bool {
        let mut hours = self.hours.iter();
        hours.any(|hour| file.starts_with(&format!("{}/", hour_dir(*hour))))
    }
}

/// Manifests of hours that were published alone.
fn published_hours(
    store: &Store,
    layout: &Layout,
    day: Day,
) -> Result<BTreeMap<u8, Manifest>, StoreError> {
    let folder = layout.raw(day);
    let entries = store.list(&folder).map_err(store.at(&folder))?;
    let names: Vec<String> = entries.iter().map(|entry| entry.name()).collect();
    let hours: Vec<u8> = (0..24)
        .filter(|hour| names.contains(&hour_dir(*hour)))
        .collect();
    let manifests = parallel::map(AT_ONCE, &hours, |hour| {
        Manifest::read(store, &folder.join(hour_dir(*hour)))
    });
    let mut published = BTreeMap::new();
    for (hour, manifest) in hours.into_iter().zip(manifests) {
        if let Some(manifest) = manifest? {
            published.insert(hour, manifest);
        }
    }
    Ok(published)
}
