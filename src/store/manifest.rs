//! What a published folder was made of: tells whether it is up to date.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

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
    pub fn read(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(Self::NAME);
        let Some(text) = found(&path, std::fs::read(&path))? else {
            return Ok(None);
        };
        let Ok(manifest) = serde_json::from_slice::<Self>(&text) else {
            return Ok(None);
        };
        for (name, bytes) in &manifest.files {
            let path = folder.join(name);
            let metadata = found(&path, std::fs::metadata(&path))?;
            if metadata.is_none_or(|metadata| metadata.len() != *bytes) {
                return Ok(None);
            }
        }
        Ok(Some(manifest))
    }
}

/// `None` for what is not there.
fn found<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::at(path)(error)),
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
