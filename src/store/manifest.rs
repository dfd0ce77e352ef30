//! What a published folder was made of: tells whether it is up to date.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::store::Store;
use crate::store::StoreError;

/// `_manifest.json` of a published folder; hidden from Hive and Spark by its name.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Manifest {
    /// The step that made it.
    pub step: String,
    /// Hash of input files, configuration and code version.
    pub fingerprint: String,
    /// klieg's version.
    pub version: String,
    /// Files of the folder with their lengths.
    pub files: Vec<(String, u64)>,
    /// Rows of the table in it.
    pub rows: u64,
    /// What the step reports about it.
    pub report: serde_json::Value,
}

impl Manifest {
    /// Name of the file.
    pub const NAME: &str = "_manifest.json";

    /// Reads the manifest of a folder; `None` where there is none that can be used, or a file that it names is not there.
    ///
    /// # Errors
    /// The folder or a file cannot be looked at.
    pub fn read(store: &Store, folder: &Path) -> Result<Option<Self>, StoreError> {
        let Some(manifest) = Self::parse(store, folder)? else {
            return Ok(None);
        };
        let found = manifest.lengths(store, folder)?;
        let is_there = |(name, bytes): &(String, u64)| found.get(name) == Some(bytes);
        Ok(manifest.files.iter().all(is_there).then_some(manifest))
    }

    /// Length of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Reads the manifest of a folder without a look at the files that it names.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn parse(store: &Store, folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(Self::NAME);
        let text = store.read(&path).map_err(store.at(&path))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Lengths of the files in the folders that the manifest names, by name; one listing a folder.
    fn lengths(&self, store: &Store, folder: &Path) -> Result<BTreeMap<String, u64>, StoreError> {
        let parent = |(name, _): &(String, u64)| Path::new(name).parent().map(Path::to_path_buf);
        let parents: BTreeSet<PathBuf> = self.files.iter().filter_map(parent).collect();
        let mut lengths = BTreeMap::new();
        for parent in parents {
            let path = folder.join(&parent);
            for entry in store.list(&path).map_err(store.at(&path))? {
                let name = parent.join(entry.name()).display().to_string();
                lengths.insert(name, entry.bytes);
            }
        }
        Ok(lengths)
    }
}

/// Returns 16 hexadecimal digits that depend on every part.
#[must_use]
pub fn fingerprint<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
