//! Configuration: layers of `key = value`, each value with its origin, checked against the keys of `conf/default.yaml`.
//!
//! ```text
//! conf/default.yaml < /etc/spot.conf < environment < site file < job file < -D        the later wins; every unknown key is an error
//! ```
//! [`Layers`] collects, [`Layers::check`] makes a [`Config`] of it, whose fields have types, units and checked ranges.

pub mod hadoop;
mod settings;
mod spot;
mod value;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_saphyr::Spanned;

use crate::config::yaml::Node;

pub use hadoop::ConfError;
pub use hadoop::HadoopConf;
pub use settings::Catalog;
pub use settings::CatalogKind;
pub use settings::Cluster;
pub use settings::Config;
pub use settings::EventTime;
pub use settings::HEARTBEAT_MS;
pub use settings::Hadoop;
pub use settings::Ingest;
pub use settings::Location;
pub use settings::Pool;
pub use settings::Suspicious;
pub use settings::Tls;
pub use settings::Waits;

/// Parses 250ms, 90s, 5m, 1h, 2d.
#[must_use]
pub fn parse_time(text: &str) -> Option<std::time::Duration> {
    value::milliseconds(text).map(std::time::Duration::from_millis)
}

/// The text of `conf/default.yaml`: every key, its default and its reason.
pub const DEFAULTS: &str = include_str!("../../conf/default.yaml");
/// Environment variables of this prefix set keys: `KLIEG_SUSPICIOUS__TOPICS` is `suspicious.topics`.
const ENVIRONMENT_PREFIX: &str = "KLIEG_";

/// Where a value was set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// `conf/default.yaml`, line.
    Default(u64),
    /// An environment variable.
    Environment(String),
    /// A file, line and column.
    File(String, u64, u64),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(line) => write!(f, "conf/default.yaml:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path, line, column) => write!(f, "{path}:{line}:{column}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// A value that cannot be used, or a key that does not exist.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not YAML.
    #[error("{path}:{message}")]
    Syntax {
        /// The file.
        path: String,
        /// Line, column, and what the parser says.
        message: String,
    },
    /// Not a key of `conf/default.yaml`.
    #[error("{origin}: unknown key `{key}`{}", nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// The most similar key.
        nearest: Option<String>,
    },
    /// A list or a map where one value is wanted, or the other way round.
    #[error("{origin}: `{key}` must be {wanted}")]
    Shape {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A value of the wrong kind or out of range.
    #[error("{origin}: `{key}` is `{value}`, must be {wanted}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key.
        key: String,
        /// The text of the value.
        value: String,
        /// What it must be.
        wanted: String,
    },
    /// A job file without a key that it must have.
    #[error("{path}: key `{key}` is missing")]
    MissingKey {
        /// The file.
        path: String,
        /// The key.
        key: &'static str,
    },
}

/// What a job file says beside configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JobKeys {
    /// `name`.
    pub name: String,
    /// `pipeline` and where it stands.
    pub pipeline: (String, Origin),
    /// `steps`, each with where it stands.
    pub steps: Vec<(String, Origin)>,
    /// Where the key `steps` stands.
    pub steps_origin: Origin,
}

/// Layers of configuration, the later over the earlier.
#[derive(Clone, Debug)]
pub struct Layers {
    values: BTreeMap<String, (String, Origin)>,
    hadoop: HadoopLayer,
}

/// What is laid over Hadoop's own configuration.
#[derive(Clone, Debug, Default)]
struct HadoopLayer {
    environment: BTreeMap<String, String>,
    files: Vec<PathBuf>,
    defines: Vec<(String, String)>,
}

/// How keys of Hadoop begin that `-D` may set.
const HADOOP_KEYS: [&str; 7] = [
    "dfs.",
    "fs.",
    "ipc.",
    "hadoop.security.",
    "hadoop.rpc.",
    "hive.metastore.",
    "io.",
];

impl Layers {
    /// Starts with the defaults and the environment.
    ///
    /// # Errors
    /// A variable of our prefix that names no key, but looks like one: it has a section, or is similar to a key.
    pub fn try_new(environment: impl Iterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut layers = Self {
            values: BTreeMap::new(),
            hadoop: HadoopLayer::default(),
        };
        let node = yaml::parse(DEFAULTS).map_err(|message| Error::Syntax {
            path: "conf/default.yaml".to_owned(),
            message,
        })?;
        let origin = |spot: (u64, u64)| Origin::Default(spot.0);
        flatten("", &node, &origin, &mut |key, value, origin| {
            layers.values.insert(key, (value, origin));
            Ok(())
        })?;
        for (name, value) in environment {
            let known = &mut layers.hadoop.environment;
            known.insert(name.clone(), value.clone());
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
                continue;
            };
            let key = key.to_lowercase().replace("__", ".");
            let origin = Origin::Environment(name);
            match layers.set(key.clone(), value, origin) {
                // Such as KLIEG_SERVICE_HOST, which Kubernetes sets for a service of our name.
                Err(Error::UnknownKey { nearest: None, .. }) if !key.contains('.') => {}
                set => set?,
            }
        }
        Ok(layers)
    }

    /// Sets one key.
    ///
    /// # Errors
    /// The key does not exist.
    pub fn set(&mut self, key: String, value: String, origin: Origin) -> Result<(), Error> {
        match self.values.get_mut(&key) {
            Some(slot) => {
                *slot = (value, origin);
                Ok(())
            }
            None => Err(Error::UnknownKey {
                nearest: nearest(&key, self.values.keys().map(String::as_str)),
                origin,
                key,
            }),
        }
    }

    /// Takes what an installation of Apache Spot says, in the place of defaults alone.
    pub fn add_spot(&mut self, path: &str, text: &str) {
        for (key, value, line) in spot::settings(text) {
            if let Some(slot) = self.values.get_mut(key)
                && matches!(slot.1, Origin::Default(_))
            {
                *slot = (value, Origin::File(path.to_owned(), line, 1));
            }
        }
    }

    /// Lays a site file over.
    ///
    /// # Errors
    /// Not YAML, or an unknown key.
    pub fn add_site(&mut self, path: &str, text: &str) -> Result<(), Error> {
        let node = parse(path, text)?;
        self.add(path, &node)
    }

    /// Lays a job file over and returns its own keys.
    ///
    /// # Errors
    /// Not YAML, an unknown key, or `name`, `pipeline` or `steps` missing.
    pub fn add_job(&mut self, path: &str, text: &str) -> Result<JobKeys, Error> {
        let Node::Map(entries) = parse(path, text)? else {
            return Err(Error::MissingKey {
                path: path.to_owned(),
                key: "name",
            });
        };
        let (mut name, mut pipeline, mut steps) = (None, None, None);
        let mut rest = Vec::new();
        for (key, node) in entries {
            match key.value.as_str() {
                "name" => name = Some(scalar(path, &key.value, &node)?.0),
                "pipeline" => pipeline = Some(scalar(path, &key.value, &node)?),
                "steps" => {
                    let (line, column) = spot(&key.referenced);
                    let origin = Origin::File(path.to_owned(), line, column);
                    steps = Some((list(path, &key.value, &node)?, origin));
                }
                _ => rest.push((key, node)),
            }
        }
        self.add_entries(path, &rest, &["name", "pipeline", "steps"])?;
        let missing = |key| Error::MissingKey {
            path: path.to_owned(),
            key,
        };
        let (steps, steps_origin) = steps.ok_or_else(|| missing("steps"))?;
        Ok(JobKeys {
            name: name.ok_or_else(|| missing("name"))?,
            pipeline: pipeline.ok_or_else(|| missing("pipeline"))?,
            steps,
            steps_origin,
        })
    }

    fn add(&mut self, path: &str, node: &Node) -> Result<(), Error> {
        match node {
            Node::Map(entries) => self.add_entries(path, entries, &[]),
            Node::Scalar(_) | Node::List(_) => Err(Error::Shape {
                origin: Origin::File(path.to_owned(), 1, 1),
                key: "(the file)".to_owned(),
                wanted: "a map of keys",
            }),
        }
    }

    fn add_entries(
        &mut self,
        path: &str,
        entries: &[(Spanned<String>, Spanned<Node>)],
        own_keys: &[&str],
    ) -> Result<(), Error> {
        let origin = |(line, column): (u64, u64)| Origin::File(path.to_owned(), line, column);
        for (key, node) in entries {
            let prefix = &key.value;
            let is_section = self
                .values
                .keys()
                .any(|known| known.starts_with(&format!("{prefix}.")));
            if is_section || self.values.contains_key(prefix) {
                check_shape(prefix, key, node, is_section, &origin)?;
                let entry = std::iter::once((key, node));
                flatten_entries("", entry, &origin, &mut |key, value, origin| {
                    self.set(key, value, origin)
                })?;
                continue;
            }
            let known = self
                .values
                .keys()
                .map(String::as_str)
                .chain(own_keys.iter().copied());
            return Err(Error::UnknownKey {
                origin: origin(spot(&key.referenced)),
                nearest: nearest(prefix, known),
                key: prefix.clone(),
            });
        }
        Ok(())
    }

    /// Sets a key of the command line, which may be one of Hadoop too.
    ///
    /// # Errors
    /// The key does not exist.
    pub fn define(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let is_hadoop = HADOOP_KEYS.iter().any(|prefix| key.starts_with(prefix));
        if is_hadoop && !self.values.contains_key(key) {
            let defines = &mut self.hadoop.defines;
            defines.push((key.to_owned(), value.to_owned()));
            return Ok(());
        }
        self.set(key.to_owned(), value.to_owned(), Origin::Flag)
    }

    /// Lays a file of Hadoop's configuration over its others.
    pub fn add_hadoop_file(&mut self, path: PathBuf) {
        self.hadoop.files.push(path);
    }

    /// Every key with its value and origin, by key.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str, &Origin)> {
        let entries = self.values.iter();
        entries.map(|(key, (value, origin))| (key.as_str(), value.as_str(), origin))
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn check(&self) -> Result<Config, Error> {
        value::check(&self.values, &self.hadoop)
    }
}

fn parse(path: &str, text: &str) -> Result<Node, Error> {
    yaml::parse(text).map_err(|message| Error::Syntax {
        path: path.to_owned(),
        message,
    })
}

fn check_shape(
    name: &str,
    key: &Spanned<String>,
    node: &Spanned<Node>,
    is_section: bool,
    origin: &impl Fn((u64, u64)) -> Origin,
) -> Result<(), Error> {
    let wanted = match (&node.value, is_section) {
        (Node::Map(_), true) | (Node::Scalar(_), false) => return Ok(()),
        (_, true) => "a map of keys",
        (_, false) => "one value",
    };
    Err(Error::Shape {
        origin: origin(spot(&key.referenced)),
        key: name.to_owned(),
        wanted,
    })
}

fn spot(location: &serde_saphyr::Location) -> (u64, u64) {
    (location.line(), location.column())
}

fn scalar(path: &str, key: &str, node: &Spanned<Node>) -> Result<(String, Origin), Error> {
    let (line, column) = spot(&node.referenced);
    let origin = Origin::File(path.to_owned(), line, column);
    match &node.value {
        Node::Scalar(text) => Ok((text.clone(), origin)),
        Node::List(_) | Node::Map(_) => Err(Error::Shape {
            origin,
            key: key.to_owned(),
            wanted: "one value",
        }),
    }
}

fn list(path: &str, key: &str, node: &Spanned<Node>) -> Result<Vec<(String, Origin)>, Error> {
    match &node.value {
        Node::List(items) => items.iter().map(|item| scalar(path, key, item)).collect(),
        Node::Scalar(_) | Node::Map(_) => Ok(vec![scalar(path, key, node)?]),
    }
}

type Sink<'a> = dyn FnMut(String, String, Origin) -> Result<(), Error> + 'a;

fn flatten(
    prefix: &str,
    node: &Node,
    origin: &impl Fn((u64, u64)) -> Origin,
    sink: &mut Sink<'_>,
) -> Result<(), Error> {
    let Node::Map(entries) = node else {
        return Ok(());
    };
    flatten_entries(
        prefix,
        entries.iter().map(|(key, node)| (key, node)),
        origin,
        sink,
    )
}

fn flatten_entries<'a>(
    prefix: &str,
    entries: impl Iterator<Item = (&'a Spanned<String>, &'a Spanned<Node>)>,
    origin: &impl Fn((u64, u64)) -> Origin,
    sink: &mut Sink<'_>,
) -> Result<(), Error> {
    for (key, node) in entries {
        let name = format!("{prefix}{}", key.value);
        match &node.value {
            Node::Map(_) => flatten(&format!("{name}."), &node.value, origin, sink)?,
            Node::Scalar(text) => sink(name, text.clone(), origin(spot(&key.referenced)))?,
            Node::List(_) => {
                return Err(Error::Shape {
                    origin: origin(spot(&key.referenced)),
                    key: name,
                    wanted: "one value",
                });
            }
        }
    }
    Ok(())
}

/// Returns the most similar name, where one is similar enough to be a slip of the pen.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let scored = known.map(|key| {
        let whole = strsim::jaro_winkler(name, key);
        (
            whole.max(strsim::jaro_winkler(&leaf(name), &leaf(key)) - 0.05),
            key,
        )
    });
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 > 0.75).then(|| best.1.to_owned())
}
