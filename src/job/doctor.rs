//! Finds what is wrong with a site before its first run.
//!
//! ```text
//! keys of the site ─► cluster: configuration, NameNodes, protection, quota ─► warehouse: write, read, lock, clock
//!                  ─► ticket ─► landing, padded partitions ─► metastore, tables
//! ```
//! What depends on something that failed is left out: one cause, one line.

use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::catalog;
use crate::catalog::Metastore;
use crate::catalog::MetastoreError;
use crate::config::CatalogKind;
use crate::config::Config;
use crate::job::Pipeline;
use crate::store;
use crate::store::Finding;
use crate::store::Level;
use crate::store::Store;
use crate::store::landing;
use crate::table::catalog::flow_tables;
use crate::table::hive::Layout;

/// A ticket that ends within a run.
const TICKET_WANTED: Duration = Duration::from_secs(4 * 3600);
/// Raw files older than that say that nobody brings new ones.
const LANDING_FRESH: Duration = Duration::from_secs(2 * 86_400);

/// Looks at everything that a run needs.
#[must_use]
pub fn examine(config: &Config, clock: fn() -> SystemTime) -> Vec<Finding> {
    let mut findings = store::checkup_cluster(config);
    let is_down = findings.iter().any(|finding| finding.level == Level::Fail);
    findings.extend(ticket(config));
    if !is_down {
        match Store::open(config) {
            Err(error) => findings.push(Finding::fail("warehouse", error.to_string(), "")),
            Ok(store) => {
                let found = store::checkup(&store, clock);
                let is_there = found
                    .iter()
                    .all(|finding| finding.check != "warehouse" || finding.level != Level::Fail);
                findings.extend(found);
                if is_there {
                    findings.extend(pipelines(&store, clock()));
                }
            }
        }
    }
    findings.extend(tables(config));
    findings
}

/// How long the ticket lives; nothing without Kerberos.
fn ticket(config: &Config) -> Option<Finding> {
    let hadoop = &config.hadoop;
    let conf = crate::config::HadoopConf::read(hadoop).ok()?;
    let is_kerberos = conf.get("hadoop.security.authentication").as_deref() == Some("kerberos");
    if config.warehouse.is_local() || !is_kerberos {
        return None;
    }
    let token = hadoop.environment.get("HADOOP_TOKEN_FILE_LOCATION");
    if let Some(path) = token.filter(|_| hadoop.keytab.is_none()) {
        return Some(match Path::new(path).try_exists() {
            Ok(true) => Finding::ok("ticket", format!("delegation tokens of {path}")),
            _ => Finding::fail(
                "ticket",
                format!("{path}: no file of tokens"),
                "correct HADOOP_TOKEN_FILE_LOCATION",
            ),
        });
    }
    let keytab = hadoop.keytab.clone().zip(hadoop.principal.clone());
    let what = match &keytab {
        Some((path, principal)) => format!("{principal} of {}", path.display()),
        None => "of the ticket cache".to_owned(),
    };
    Some(match catalog::ticket_life(keytab) {
        Err(error) => Finding::of_error("ticket", &what, &error),
        Ok(life) => {
            let found = format!("{what}: lives {} more minutes", life.as_secs() / 60);
            match (life < TICKET_WANTED, hadoop.keytab.is_some()) {
                (true, false) => Finding::warn(
                    "ticket",
                    found,
                    "long ranges outlive it: set hadoop.principal and hadoop.keytab",
                ),
                _ => Finding::ok("ticket", found),
            }
        }
    })
}

fn pipelines(store: &Store, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pipeline in Pipeline::ALL {
        let layout = Layout::new(store.root(), pipeline.name());
        findings.push(landed(store, &layout.landing(), now));
        findings.push(padding(store, &layout.table()));
    }
    findings.push(match store.half_published() {
        Err(error) => Finding::of_error("journal", &error.path, &error.error),
        Ok(keys) if keys.is_empty() => Finding::ok("journal", "nothing is half done".to_owned()),
        Ok(keys) => Finding::warn(
            "journal",
            format!("half done: {}", keys.join(", ")),
            "klieg recover",
        ),
    });
    findings
}

fn landed(store: &Store, folder: &Path, now: SystemTime) -> Finding {
    let name = store.url(folder);
    if let Err(error) = store.check_folder(folder) {
        let remedy = "make it, and let the collector put closed nfcapd files there";
        return Finding {
            remedy: remedy.to_owned(),
            ..Finding::of_error("landing", &name, &error.error)
        };
    }
    let listing = match landing::list(store, folder) {
        Ok(listing) => listing,
        Err(error) => return Finding::of_error("landing", &error.path, &error.error),
    };
    let nameless = listing
        .files
        .iter()
        .filter(|file| file.named.is_none())
        .count();
    let bytes: u64 = listing.files.iter().map(|file| file.bytes).sum();
    let found = format!(
        "{name}: {} raw files, {} MiB, {} still being written",
        listing.files.len(),
        bytes >> 20,
        listing.unfinished.len()
    );
    let newest = listing.files.iter().map(|file| file.modified_ns).max();
    let age = newest.map(|newest| {
        let newest = UNIX_EPOCH + Duration::from_nanos(newest);
        now.duration_since(newest).unwrap_or_default()
    });
    if listing.files.is_empty() {
        return Finding::warn(
            "landing",
            found,
            "let the collector put closed nfcapd files there",
        );
    }
    if nameless > 0 {
        let found = format!("{found}; {nameless} have no time in their names");
        return Finding::warn(
            "landing",
            found,
            "keep nfcapd's names (nfcapd.201607081005): others are opened for every day",
        );
    }
    if age.is_some_and(|age| age > LANDING_FRESH) {
        let days = age.unwrap_or_default().as_secs() / 86_400;
        let found = format!("{found}; the newest is {days} days old");
        return Finding::warn(
            "landing",
            found,
            "is the collector at work, and does it bring its files?",
        );
    }
    Finding::ok("landing", found)
}

/// Folders such as `m=07` of other tools: Hive knows them as another folder of the same month.
fn padding(store: &Store, table: &Path) -> Finding {
    let mut level = vec![table.to_path_buf()];
    let mut padded = None;
    for _ in 0..3 {
        let mut next = Vec::new();
        for folder in &level {
            let entries = match store.list(folder) {
                Ok(entries) => entries,
                Err(error) => return Finding::of_error("partitions", &store.url(folder), &error),
            };
            for entry in entries.into_iter().filter(|entry| entry.is_folder) {
                let name = entry.name();
                if name
                    .split_once("=0")
                    .is_some_and(|(_, rest)| !rest.is_empty())
                {
                    padded.get_or_insert_with(|| store.url(&entry.path));
                }
                if name.contains('=') {
                    next.push(entry.path);
                }
            }
        }
        level = next;
    }
    match padded {
        Some(first) => Finding::warn(
            "partitions",
            format!("{first} and others have padded values; klieg writes m=7, not m=07"),
            "move what is in them, or drop them: a month in two folders is read twice or not at all",
        ),
        None => Finding::ok(
            "partitions",
            format!("{}: no padded values", store.url(table)),
        ),
    }
}

fn tables(config: &Config) -> Vec<Finding> {
    let remedy = "see catalog.uris, hive-site.xml and the metastore's log";
    if config.catalog.kind != CatalogKind::Metastore {
        let found =
            "none is told (catalog.kind); readers go by path, or run the statements".to_owned();
        return vec![Finding::ok("metastore", found)];
    }
    let of_error = |error: MetastoreError| match error {
        MetastoreError::Call { uri, error } => Finding {
            remedy: remedy.to_owned(),
            ..Finding::of_error("metastore", &uri, &error)
        },
        other => Finding::fail("metastore", other.to_string(), remedy),
    };
    let metastore = match Metastore::open(config) {
        Ok(metastore) => metastore,
        Err(error) => return vec![of_error(error)],
    };
    let version = match metastore.version() {
        Ok(version) => version,
        Err(error) => return vec![of_error(error)],
    };
    let found = format!(
        "{}: {}, version {version}",
        metastore.uris(),
        metastore.protocol()
    );
    let mut findings = vec![Finding::ok("metastore", found)];
    let store = match Store::open(config) {
        Ok(store) => store,
        Err(error) => return vec![Finding::fail("warehouse", error.to_string(), "")],
    };
    let tables = flow_tables(store.root());
    let compared = match metastore.compare(&tables, &|path| store.uri(path)) {
        Ok(compared) => compared,
        Err(error) => {
            findings.push(of_error(error));
            return findings;
        }
    };
    for (table, compared) in tables.iter().zip(compared) {
        let name = format!("{}.{}", config.catalog.database, table.name);
        findings.push(match compared {
            None => Finding::fail("table", format!("{name} is missing"), "klieg setup"),
            Some(differences) if differences.is_empty() => {
                Finding::ok("table", format!("{name} is as it must be"))
            }
            Some(differences) => Finding::fail(
                "table",
                format!("{name}: {}", differences.join("; ")),
                "choose another catalog.database, or mend the table",
            ),
        });
    }
    findings
}
