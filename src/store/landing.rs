//! Raw files below the landing folder, and which of them can hold a day.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use chrono::NaiveDateTime;

/// A raw file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Landed {
    /// Its path.
    pub path: PathBuf,
    /// Length.
    pub bytes: u64,
    /// Last change, nanoseconds since 1970.
    pub modified_ns: u64,
    /// Time in its name, milliseconds since 1970 UTC.
    pub named_ms: Option<u64>,
}

/// What a landing folder holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Raw files by path.
    pub files: Vec<Landed>,
    /// Files that a collector or a copy still writes, by their names; not read.
    pub unfinished: Vec<PathBuf>,
}

/// Lists a folder and what is below it, by path. Names with a leading dot or underscore are hidden; links are followed.
///
/// # Errors
/// The first folder or file that cannot be looked at, with its path.
pub fn list(folder: &Path) -> Result<Listing, (PathBuf, io::Error)> {
    let mut listing = Listing::default();
    let mut folders = vec![folder.to_path_buf()];
    let mut seen = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        let fail = |error| (folder.clone(), error);
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            paths.push(entry.map_err(fail)?.path());
        }
        // Of two links to one file, the first by name is read.
        paths.sort();
        for path in paths {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with(['.', '_']) {
                continue;
            }
            if is_unfinished(&name) {
                listing.unfinished.push(path);
                continue;
            }
            let metadata = match std::fs::metadata(&path) {
                Ok(metadata) => metadata,
                // Renamed or removed since the folder was read, or a link to nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err((path, error)),
            };
            // A link may lead to a folder or file that is listed already.
            if !seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() {
                let modified = metadata.modified().map_err(|error| (path.clone(), error))?;
                let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                listing.files.push(Landed {
                    named_ms: named_ms(&name),
                    bytes: metadata.len(),
                    modified_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
                    path,
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

/// Returns the time of the last part of a name that is `YYYYMMDDhhmm` or `YYYYMMDDhhmmss`, as nfcapd's are, read as UTC.
fn named_ms(name: &str) -> Option<u64> {
    let mut parts = name.split('.').rev();
    parts.find_map(|part| {
        let seconds = match part.len() {
            12 => "00",
            14 => "",
            _ => return None,
        };
        let time =
            NaiveDateTime::parse_from_str(&format!("{part}{seconds}"), "%Y%m%d%H%M%S").ok()?;
        u64::try_from(time.and_utc().timestamp_millis()).ok()
    })
}
