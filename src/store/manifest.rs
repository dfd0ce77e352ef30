//! What a published folder was made of: tells whether it is up to date.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;

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
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(Self::NAME)).ok()?;
        let manifest: Self = serde_json::from_str(&text).ok()?;
        let is_there = |(name, bytes): &(String, u64)| {
            std::fs::metadata(folder.join(name)).is_ok_and(|metadata| metadata.len() == *bytes)
        };
        manifest.files.iter().all(is_there).then_some(manifest)
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
