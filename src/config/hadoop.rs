//! Hadoop's configuration as its own clients read it.
//!
//! ```text
//! core-site.xml < hdfs-site.xml < viewfs-mount-table.xml < files of --conf < -D        the later wins, unless the earlier is final
//! ```
//! Values are trimmed; `${…}` is replaced by an environment variable (`${env.NAME}`, `${env.NAME:-default}`), a property of the
//! Java system that we know (`user.name`, `user.home`) or another key (Hadoop's `Configuration.substituteVars`). `xi:include` is followed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use roxmltree::Document;
use roxmltree::Node;

use crate::config::Hadoop;

/// Files of a configuration folder, the earlier first.
const FILES: [&str; 3] = ["core-site.xml", "hdfs-site.xml", "viewfs-mount-table.xml"];
/// That of Hive's clients.
const HIVE_FILE: &str = "hive-site.xml";
/// Replacements within one value, and includes within includes, as Hadoop has it.
const DEPTH_MAX: usize = 20;

/// Why Hadoop's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file is not XML.
    #[error("{path}: {message}")]
    Xml {
        /// Which.
        path: String,
        /// What and where.
        message: String,
    },
    /// Files that include each other.
    #[error("{path}: includes are nested more than {DEPTH_MAX} deep")]
    Includes {
        /// The innermost.
        path: String,
    },
    /// The warehouse is on HDFS, and nothing says which.
    #[error("{0}")]
    NoFileSystem(String),
}

/// A value and where it was set.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Setting {
    raw: String,
    origin: String,
    is_final: bool,
}

/// The keys of Hadoop.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HadoopConf {
    settings: BTreeMap<String, Setting>,
    environment: BTreeMap<String, String>,
}

impl HadoopConf {
    /// Reads Hadoop's configuration with what the command line lays over it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(hadoop: &Hadoop) -> Result<Self, ConfError> {
        let mut conf = Self::new(hadoop.environment.clone());
        conf.add_folder(&folder(hadoop.conf_dir.as_ref(), &hadoop.environment))?;
        conf.add_command_line(hadoop)?;
        Ok(conf)
    }

    /// Reads it with that of Hive's clients: of `folder`, `HIVE_CONF_DIR`, the folder of Hadoop's, or where packages put it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read_hive(hadoop: &Hadoop, hive: Option<&PathBuf>) -> Result<Self, ConfError> {
        let environment = &hadoop.environment;
        let hadoop_folder = folder(hadoop.conf_dir.as_ref(), environment);
        let mut conf = Self::new(environment.clone());
        conf.add_folder(&hadoop_folder)?;
        let of_environment = environment.get("HIVE_CONF_DIR").map(PathBuf::from);
        if let Some(named) = hive.cloned().or(of_environment) {
            conf.add_file(&named.join(HIVE_FILE))?;
        } else {
            let places = [hadoop_folder, PathBuf::from("/etc/hive/conf")];
            let found = places.iter().map(|folder| folder.join(HIVE_FILE));
            if let Some(file) = found.into_iter().find(|file| file.is_file()) {
                conf.add_file(&file)?;
            }
        }
        conf.add_command_line(hadoop)?;
        Ok(conf)
    }

    fn add_command_line(&mut self, hadoop: &Hadoop) -> Result<(), ConfError> {
        for file in &hadoop.files {
            self.add_file(file)?;
        }
        for (key, value) in &hadoop.defines {
            self.set(key, value, "command line");
        }
        Ok(())
    }

    /// Starts without any key.
    #[must_use]
    pub fn new(environment: BTreeMap<String, String>) -> Self {
        Self {
            settings: BTreeMap::new(),
            environment,
        }
    }

    /// Lays the files of a configuration folder over; those that are missing are left out.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), ConfError> {
        for name in FILES {
            match self.add_file(&folder.join(name)) {
                Err(ConfError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
                added => added?,
            }
        }
        Ok(())
    }

    /// Lays a file over.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn add_file(&mut self, path: &Path) -> Result<(), ConfError> {
        self.add_nested(path, 0)
    }

    /// Sets a key, also one that is final, as `-D` does.
    pub fn set(&mut self, key: &str, value: &str, origin: &str) {
        let setting = Setting {
            raw: value.trim().to_owned(),
            origin: origin.to_owned(),
            is_final: false,
        };
        self.settings.insert(key.to_owned(), setting);
    }

    fn add_nested(&mut self, path: &Path, depth: usize) -> Result<(), ConfError> {
        let name = path.display().to_string();
        if depth > DEPTH_MAX {
            return Err(ConfError::Includes { path: name });
        }
        let text = std::fs::read_to_string(path).map_err(|error| ConfError::Read {
            path: name.clone(),
            error,
        })?;
        let document = Document::parse(&text).map_err(|error| ConfError::Xml {
            path: name.clone(),
            message: error.to_string(),
        })?;
        self.add_children(document.root_element(), path, depth)
    }

    fn add_children(
        &mut self,
        parent: Node<'_, '_>,
        path: &Path,
        depth: usize,
    ) -> Result<(), ConfError> {
        for node in parent.children().filter(Node::is_element) {
            match node.tag_name().name() {
                "property" => self.add_property(node, path),
                "configuration" => self.add_children(node, path, depth)?,
                "include" => self.include(node, path, depth)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn include(&mut self, node: Node<'_, '_>, path: &Path, depth: usize) -> Result<(), ConfError> {
        let href = node.attribute("href").unwrap_or_default();
        let href = href.strip_prefix("file://").unwrap_or(href);
        let folder = path.parent().unwrap_or(Path::new("."));
        let fallback = node
            .children()
            .find(|child| child.tag_name().name() == "fallback");
        match (self.add_nested(&folder.join(href), depth + 1), fallback) {
            (Err(ConfError::Read { .. }), Some(fallback)) => {
                self.add_children(fallback, path, depth)
            }
            (added, _) => added,
        }
    }

    fn add_property(&mut self, node: Node<'_, '_>, path: &Path) {
        let part = |name: &str| {
            let child = node
                .children()
                .find(|child| child.tag_name().name() == name);
            let text = child.and_then(|child| child.text());
            text.or_else(|| node.attribute(name)).map(str::trim)
        };
        let (Some(key), Some(value)) = (part("name"), part("value").or(Some(""))) else {
            return;
        };
        if self
            .settings
            .get(key)
            .is_some_and(|earlier| earlier.is_final)
        {
            return;
        }
        let setting = Setting {
            raw: value.to_owned(),
            origin: path.display().to_string(),
            is_final: part("final") == Some("true"),
        };
        self.settings.insert(key.to_owned(), setting);
    }

    /// Returns a value with its variables replaced.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        let mut value = self.settings.get(key)?.raw.clone();
        for _ in 0..DEPTH_MAX {
            let Some(replaced) = self.replace_first(&value) else {
                break;
            };
            value = replaced;
        }
        Some(value)
    }

    /// Returns where a key was set.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&str> {
        Some(&self.settings.get(key)?.origin)
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().map(String::as_str)
    }

    /// Replaces the first variable that has a value; `None` where there is none.
    fn replace_first(&self, value: &str) -> Option<String> {
        let mut from = 0;
        while let Some(start) = value.get(from..)?.find("${").map(|at| from + at) {
            let length = value.get(start..)?.find('}')?;
            let name = value.get(start + 2..start + length)?;
            if let Some(replacement) = self.variable(name) {
                let (head, tail) = (value.get(..start)?, value.get(start + length + 1..)?);
                return Some(format!("{head}{replacement}{tail}"));
            }
            from = start + 2;
        }
        None
    }

    fn variable(&self, name: &str) -> Option<String> {
        let environment = |name: &str| self.environment.get(name).cloned();
        if let Some(name) = name.strip_prefix("env.") {
            // `:-` also for an empty value, `-` only for a missing one.
            return match (name.split_once(":-"), name.split_once('-')) {
                (Some((name, default)), _) => environment(name)
                    .filter(|value| !value.is_empty())
                    .or_else(|| Some(default.to_owned())),
                (None, Some((name, default))) => {
                    environment(name).or_else(|| Some(default.to_owned()))
                }
                (None, None) => environment(name),
            };
        }
        match name {
            "user.name" => environment("USER").or_else(|| environment("LOGNAME")),
            "user.home" => environment("HOME"),
            _ => Some(self.settings.get(name)?.raw.clone()),
        }
    }
}

/// Returns the folder of Hadoop's configuration: as configured, `HADOOP_CONF_DIR`, `HADOOP_HOME`/etc/hadoop, or where packages put it.
#[must_use]
pub fn folder(configured: Option<&PathBuf>, environment: &BTreeMap<String, String>) -> PathBuf {
    if let Some(folder) = configured {
        return folder.clone();
    }
    if let Some(folder) = environment.get("HADOOP_CONF_DIR") {
        return PathBuf::from(folder);
    }
    let home = environment.get("HADOOP_HOME");
    home.map_or_else(
        || PathBuf::from("/etc/hadoop/conf"),
        |home| Path::new(home).join("etc/hadoop"),
    )
}
