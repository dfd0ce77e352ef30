//! What is found out about a cluster: configuration, NameNodes, protection, quota.

use std::io;
use std::net::TcpStream;
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfError;
use crate::config::Hadoop;
use crate::config::HadoopConf;
use crate::config::Location;
use crate::config::hadoop;
use crate::store::checkup::Finding;
use crate::store::checkup::Level;
use crate::store::hdfs::call::Cluster;
use crate::store::hdfs::target::Target;

/// How long each NameNode is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the cluster of a warehouse. The first finding that fails may be the cause of the others.
#[must_use]
pub(in crate::store) fn look(location: &Location, settings: &Hadoop) -> Vec<Finding> {
    match try_look(location, settings) {
        Ok(findings) => findings,
        Err(error) => vec![Finding::fail(
            "configuration",
            error.to_string(),
            "correct the file, or set HADOOP_CONF_DIR or hadoop.conf_dir",
        )],
    }
}

fn try_look(location: &Location, settings: &Hadoop) -> Result<Vec<Finding>, ConfError> {
    let conf = HadoopConf::read(settings)?;
    let folder = hadoop::folder(settings.conf_dir.as_ref(), &settings.environment);
    let mut findings = vec![configuration(&conf, &folder)];
    let target = Target::find(location, settings)?;
    if location.scheme == "viewfs" {
        let found = format!("{}: the mount table decides", target.url);
        findings.push(Finding::ok("namenode", found));
    } else {
        let addresses = addresses(&target);
        findings.extend(namenodes(&addresses, location, settings));
        findings.extend(impostor(&conf, &addresses, location, settings));
    }
    findings.push(protection(&conf));
    let is_down = findings.iter().any(|finding| finding.level == Level::Fail);
    if !is_down && let Some(finding) = quota(location, settings) {
        findings.push(finding);
    }
    Ok(findings)
}

fn configuration(conf: &HadoopConf, folder: &Path) -> Finding {
    let count = conf.keys().count();
    let default = conf.get("fs.defaultFS").unwrap_or_default();
    let origin = conf.origin("fs.defaultFS").unwrap_or("nowhere");
    let found = format!(
        "{count} keys, folder {}; fs.defaultFS {default} from {origin}",
        folder.display()
    );
    match count {
        0 => Finding::warn(
            "configuration",
            found,
            "set HADOOP_CONF_DIR or hadoop.conf_dir to the folder of core-site.xml and hdfs-site.xml",
        ),
        _ => Finding::ok("configuration", found),
    }
}

/// Host and port of each NameNode.
fn addresses(target: &Target) -> Vec<String> {
    let authority = target.url.split("://").nth(1).unwrap_or_default();
    match &target.namenodes_key {
        None => vec![authority.to_owned()],
        Some(key) => {
            let ids = target
                .settings
                .get(key)
                .map(String::as_str)
                .unwrap_or_default();
            let address = |id: &str| {
                let key = format!("dfs.namenode.rpc-address.{authority}.{id}");
                target.settings.get(&key).cloned()
            };
            ids.split(',').filter_map(address).collect()
        }
    }
}

/// Each NameNode: its name resolves, it listens, it is active.
fn namenodes(addresses: &[String], location: &Location, settings: &Hadoop) -> Vec<Finding> {
    let states: Vec<_> = addresses
        .iter()
        .map(|address| (address, state(address, location, settings)))
        .collect();
    let has_active = states
        .iter()
        .any(|(_, state)| matches!(state, State::Active));
    let several = states.len() > 1;
    let findings = states.iter().map(|(address, state)| match state {
        State::Active => Finding::ok("namenode", format!("{address} is active")),
        State::Standby if has_active => Finding::ok("namenode", format!("{address} is standby")),
        State::Standby => Finding::fail(
            "namenode",
            format!("{address} is standby, and no other is active"),
            "hdfs haadmin -transitionToActive, and look at the failover controller",
        ),
        State::Silent(error) if several && has_active => Finding::warn(
            "namenode",
            format!("{address}: {error}"),
            "start it: the next failure of the other stops every run",
        ),
        State::Silent(error) => Finding::of_error("namenode", address, error),
    });
    let mut findings: Vec<_> = findings.collect();
    if !has_active {
        for finding in &mut findings {
            finding.kind = finding.kind.or(Some(io::ErrorKind::HostUnreachable));
        }
    }
    findings
}

/// A NameNode that takes anybody for who he says he is, though Kerberos is configured. Hadoop's own clients do not speak to it, unless
/// `ipc.client.fallback-to-simple-auth-allowed`; hdfs-native does.
fn impostor(
    conf: &HadoopConf,
    addresses: &[String],
    location: &Location,
    settings: &Hadoop,
) -> Option<Finding> {
    let is = |key: &str, value: &str| conf.get(key).as_deref() == Some(value);
    if !is(AUTHENTICATION, "kerberos") || is("ipc.client.fallback-to-simple-auth-allowed", "true") {
        return None;
    }
    let mut simple = settings.clone();
    let define = (AUTHENTICATION.to_owned(), "simple".to_owned());
    simple.defines.push(define);
    let is_open =
        |address: &&String| !matches!(state(address, location, &simple), State::Silent(_));
    let address = addresses.iter().find(is_open)?;
    Some(Finding {
        kind: Some(io::ErrorKind::PermissionDenied),
        ..Finding::fail(
            "authentication",
            format!("{address} lets anybody in without a ticket, and {AUTHENTICATION} is kerberos"),
            "is it the NameNode that it must be? switch Kerberos on there, or set hadoop.security.authentication to simple here",
        )
    })
}

const AUTHENTICATION: &str = "hadoop.security.authentication";

enum State {
    Active,
    Standby,
    Silent(io::Error),
}

fn state(address: &str, location: &Location, settings: &Hadoop) -> State {
    let mut found = match address.to_socket_addrs() {
        Ok(found) => found,
        Err(error) => {
            let text = format!("the name does not resolve: {error}");
            return State::Silent(io::Error::new(io::ErrorKind::HostUnreachable, text));
        }
    };
    let connected = found.find_map(|address| TcpStream::connect_timeout(&address, PATIENCE).ok());
    if connected.is_none() {
        let text = "nothing listens there";
        return State::Silent(io::Error::new(io::ErrorKind::ConnectionRefused, text));
    }
    let location = Location {
        authority: address.to_owned(),
        path: PathBuf::from("/"),
        ..location.clone()
    };
    let settings = Hadoop {
        call_timeout: PATIENCE,
        patience: Duration::ZERO,
        ..settings.clone()
    };
    let cluster = match Cluster::open(&location, &settings) {
        Ok(cluster) => cluster,
        Err(error) => return State::Silent(io::Error::other(error.to_string())),
    };
    let asked = cluster.call("stat", PATIENCE, |client| async move {
        client.get_file_info("/").await
    });
    match asked {
        Ok(_) => State::Active,
        Err(error) if error.to_string().contains("StandbyException") => State::Standby,
        Err(error) => State::Silent(error),
    }
}

fn protection(conf: &HadoopConf) -> Finding {
    let get = |key: &str| conf.get(key).unwrap_or_default();
    let authentication = get(AUTHENTICATION);
    let transfer = get("dfs.data.transfer.protection");
    let is_hidden = transfer.contains("privacy") || get("dfs.encrypt.data.transfer") == "true";
    let suites = get("dfs.encrypt.data.transfer.cipher.suites");
    let shown = |text: &str, none: &str| match text {
        "" => none.to_owned(),
        text => text.to_owned(),
    };
    let found = format!(
        "authentication {}, calls {}, data {}{}",
        shown(&authentication, "simple"),
        shown(&get("hadoop.rpc.protection"), "authentication"),
        shown(&transfer, "as they are"),
        if is_hidden {
            format!(", cipher {}", shown(&suites, "3DES or RC4"))
        } else {
            String::new()
        },
    );
    let has_effect = authentication == "kerberos" || get("dfs.encrypt.data.transfer") == "true";
    if !transfer.is_empty() && !has_effect {
        return Finding::warn(
            "protection",
            format!("{found}: without Kerberos it has no effect, data goes as it is"),
            "switch Kerberos on, or take dfs.data.transfer.protection out",
        );
    }
    if is_hidden && !suites.contains("AES") {
        return Finding::warn(
            "protection",
            found,
            "privacy without AES moves a few MB/s: set dfs.encrypt.data.transfer.cipher.suites to AES/CTR/NoPadding on all nodes and clients",
        );
    }
    Finding::ok("protection", found)
}

/// Free quota of the warehouse and of the folders above it; `None` where nobody can tell.
fn quota(location: &Location, settings: &Hadoop) -> Option<Finding> {
    let cluster = Cluster::open(location, settings).ok()?;
    let mut tightest: Option<(u64, String)> = None;
    let mut is_answered = false;
    for folder in location.path.ancestors() {
        let name = folder.to_str()?.to_owned();
        let asked = name.clone();
        let summary = cluster.call(
            "content summary",
            settings.call_timeout,
            |client| async move { client.get_content_summary(&asked).await },
        );
        // Folders above may be closed to this user.
        let Ok(summary) = summary else { continue };
        is_answered = true;
        let has_quota = summary.space_quota != u64::MAX;
        let free = summary.space_quota.saturating_sub(summary.space_consumed);
        if has_quota && tightest.as_ref().is_none_or(|(least, _)| free < *least) {
            tightest = Some((free, name.clone()));
        }
        let names = summary.file_count + summary.directory_count;
        if summary.quota != u64::MAX && summary.quota.saturating_sub(names) < NAMES_WANTED {
            let found = format!(
                "{name}: room for {} more files",
                summary.quota.saturating_sub(names)
            );
            let remedy = "raise it: hdfs dfsadmin -setQuota; a day takes about 100 names";
            return Some(Finding::warn("quota", found, remedy));
        }
        // The summary of a whole cluster is dear, and its root has no quota of bytes.
        if folder.components().count() <= 2 {
            break;
        }
    }
    if !is_answered {
        return None;
    }
    Some(match tightest {
        None => Finding::ok("quota", "none".to_owned()),
        Some((free, name)) => {
            let found = format!("{name}: {} MiB free, all replicas counted", free >> 20);
            match free < BYTES_WANTED {
                true => Finding::warn("quota", found, "raise it: hdfs dfsadmin -setSpaceQuota"),
                false => Finding::ok("quota", found),
            }
        }
    })
}

const NAMES_WANTED: u64 = 1000;
const BYTES_WANTED: u64 = 10 << 30;
