//! Raw files below the landing folder, and which of them can hold a day.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use chrono::NaiveDateTime;

use crate::store::Store;
use crate::store::StoreError;

/// A raw file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Landed {
    /// Its path.
    pub path: PathBuf,
    /// Length.
    pub bytes: u64,
    /// Last change, nanoseconds since 1970.
    pub modified_ns: u64,
    /// True for a file of whole blocks on HDFS.
    pub is_whole_blocks: bool,
    /// Time in its name, as the clock of the collector shows it.
    pub named: Option<NaiveDateTime>,
}

/// What a landing folder holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Raw files by path.
    pub files: Vec<Landed>,
    /// Files that a collector or a copy still writes, by their names, and those without a byte; not read.
    pub unfinished: Vec<PathBuf>,
}

/// Lists a folder and what is below it, by path. Names with a leading dot or underscore are hidden; links are followed.
///
/// # Errors
/// The first folder or file that cannot be looked at.
pub fn list(store: &Store, folder: &Path) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let mut level = vec![folder.to_path_buf()];
    // A link may lead to a folder or file that is listed already; of two links to one file, the first by name is read.
    let mut seen = BTreeSet::new();
    while !level.is_empty() {
        let listed = store.files().list_all(&level);
        let listed = listed.map_err(|(path, error)| store.at(&path)(error))?;
        level.clear();
        for entry in listed.into_iter().flatten() {
            let name = entry.name();
            let is_hidden = name.starts_with(['.', '_']);
            if is_hidden || entry.id.is_some_and(|id| !seen.insert(id)) {
                continue;
            }
            if entry.is_folder {
                level.push(entry.path);
            } else if entry.bytes == 0 || is_unfinished(&name) {
                listing.unfinished.push(entry.path);
            } else {
                listing.files.push(Landed {
                    named: named(&name),
                    bytes: entry.bytes,
                    modified_ns: entry.modified_ns,
                    is_whole_blocks: entry.is_whole_blocks,
                    path: entry.path,
                });
            }
        }
    }
    listing.files.sort();
    listing.unfinished.sort();
    Ok(listing)
}

/// True for the open file of nfcapd, and for copies that are not complete.
fn is_unfinished(name: &str) -> bool {
    let is_current = name.starts_with("nfcapd.current");
    is_current || name.ends_with("._COPYING_") || name.ends_with(".tmp") || name.ends_with(".part")
}

/// Returns the time of the last part of a name that is `YYYYMMDDhhmm` or `YYYYMMDDhhmmss`, as nfcapd's are.
fn named(name: &str) -> Option<NaiveDateTime> {
    let mut parts = name.split('.').rev();
    parts.find_map(|part| {
        let seconds = match part.len() {
            12 => "00",
            14 => "",
            _ => return None,
        };
        NaiveDateTime::parse_from_str(&format!("{part}{seconds}"), "%Y%m%d%H%M%S").ok()
    })
}
