//! Which cluster a warehouse lies on, and the settings that its client gets.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;

use crate::config::ConfError;
use crate::config::Hadoop;
use crate::config::HadoopConf;
use crate::config::Location;

/// NameNodes listen here unless told otherwise.
const PORT: u16 = 8020;

/// What a client is made of.
#[derive(Debug)]
pub(super) struct Target {
    /// `hdfs://host:port`, or `hdfs://nameservice`.
    pub(super) url: String,
    /// Every key with its variables replaced.
    pub(super) settings: BTreeMap<String, String>,
    /// The key of the list of NameNodes, where there are several.
    pub(super) namenodes_key: Option<String>,
}

impl Target {
    pub(super) fn find(location: &Location, hadoop: &Hadoop) -> Result<Self, ConfError> {
        let conf = HadoopConf::read(hadoop)?;
        let mut settings: BTreeMap<String, String> = conf
            .keys()
            .filter_map(|key| Some((key.to_owned(), conf.get(key)?)))
            .collect();
        let (scheme, authority) = authority(location, &conf)?;
        let namenodes_key = format!("dfs.ha.namenodes.{authority}");
        let several = settings.contains_key(&namenodes_key);
        for (key, value) in &mut settings {
            // A blank before a name would drop that NameNode.
            if key.starts_with("dfs.ha.namenodes.") || key == "dfs.nameservices" {
                *value = value
                    .split(',')
                    .map(str::trim)
                    .collect::<Vec<_>>()
                    .join(",");
            }
        }
        settings.extend(OVERRIDES.map(|(key, value)| (key.to_owned(), value.to_owned())));
        if !several {
            // One NameNode: we try again ourselves, and the client's own tries would outlast our time-out and hide the reason.
            settings.extend(IMPATIENT.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        let address = match (scheme.as_str(), several) {
            ("hdfs", false) => address(&authority, &conf, hadoop),
            _ => authority,
        };
        Ok(Self {
            url: format!("{scheme}://{address}"),
            settings,
            namenodes_key: several.then_some(namenodes_key),
        })
    }
}

const IMPATIENT: [(&str, &str); 2] = [
    ("dfs.client.failover.max.attempts", "1"),
    ("dfs.client.failover.sleep.base.millis", "100"),
];

/// Settings that a site cannot choose, since the client fails or hangs with others.
const OVERRIDES: [(&str, &str); 2] = [
    // A pipeline that has lost a DataNode goes on with the rest; the file is written again as a whole where that fails.
    (
        "dfs.client.block.write.replace-datanode-on-failure.policy",
        "NEVER",
    ),
    (
        "dfs.client.block.write.replace-datanode-on-failure.best-effort",
        "false",
    ),
];

/// Scheme and authority of the warehouse, or of `fs.defaultFS` where it names none.
fn authority(location: &Location, conf: &HadoopConf) -> Result<(String, String), ConfError> {
    if !location.authority.is_empty() {
        return Ok((location.scheme.clone(), location.authority.clone()));
    }
    let default = conf
        .get("fs.defaultFS")
        .or_else(|| conf.get("fs.default.name"));
    let default = default.unwrap_or_default();
    let parts = default.split_once("://");
    let authority = parts.map(|(scheme, rest)| {
        let authority = rest.split('/').next().unwrap_or_default();
        (scheme.to_owned(), authority.to_owned())
    });
    match authority {
        Some((scheme, authority))
            if ["hdfs", "viewfs"].contains(&scheme.as_str()) && !authority.is_empty() =>
        {
            Ok((scheme, authority))
        }
        _ => Err(ConfError::NoFileSystem(format!(
            "the warehouse `{}://{}` names no NameNode and fs.defaultFS is `{default}`; write hdfs://namenode:8020/… or set HADOOP_CONF_DIR, hadoop.conf_dir or --fs",
            location.scheme,
            location.path.display()
        ))),
    }
}

/// Returns `host:port` of the only NameNode.
fn address(authority: &str, conf: &HadoopConf, hadoop: &Hadoop) -> String {
    let of_service = conf.get(&format!("dfs.namenode.rpc-address.{authority}"));
    let mut address = of_service.unwrap_or_else(|| authority.to_owned());
    if !address.contains(':') {
        address = format!("{address}:{PORT}");
    }
    // Java writes the service of a token as an address, and the client compares texts.
    if hadoop
        .environment
        .contains_key("HADOOP_TOKEN_FILE_LOCATION")
        && let Ok(mut found) = address.to_socket_addrs()
        && let Some(found) = found.find(std::net::SocketAddr::is_ipv4)
    {
        return found.to_string();
    }
    address
}
