//! Texts of values to typed, checked values.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::config::Catalog;
use crate::config::CatalogKind;
use crate::config::Cluster;
use crate::config::Config;
use crate::config::Error;
use crate::config::EventTime;
use crate::config::HEARTBEAT_MS;
use crate::config::Hadoop;
use crate::config::HadoopLayer;
use crate::config::Ingest;
use crate::config::Location;
use crate::config::Origin;
use crate::config::Pool;
use crate::config::Suspicious;
use crate::config::Tls;
use crate::config::Waits;

const TIME: &str = "a time such as 90s, 5m, 1h";

struct Values<'a>(&'a BTreeMap<String, (String, Origin)>);

pub(super) fn check(
    values: &BTreeMap<String, (String, Origin)>,
    layer: &HadoopLayer,
) -> Result<Config, Error> {
    let values = Values(values);
    let threads: usize = values.number("threads", 0, 4096)?;
    let processors = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let catalog = catalog(&values)?;
    Ok(Config {
        texts: values
            .0
            .iter()
            .map(|(key, (text, _))| (key.clone(), text.clone()))
            .collect(),
        warehouse: values.parsed(
            "warehouse",
            "an hdfs:// or file:// URL or an absolute path, without * ? [ ] { }",
            location,
        )?,
        zone: values.parsed("timezone", "a name such as UTC or Europe/Berlin", |text| {
            text.parse().ok()
        })?,
        is_versioned: values.parsed(
            "layout",
            "canonical, or, with catalog.kind metastore, versioned",
            |text| match text {
                "canonical" => Some(false),
                "versioned" => (catalog.kind == CatalogKind::Metastore).then_some(true),
                _ => None,
            },
        )?,
        work_dir: values.parsed("work_dir", "an absolute path", |text| {
            Some(PathBuf::from(text)).filter(|path| path.is_absolute())
        })?,
        keep: values.time("keep")?,
        hadoop: hadoop(&values, layer)?,
        catalog,
        pool: pool(&values)?,
        cluster: cluster(&values)?,
        threads: NonZeroUsize::new(threads).unwrap_or_else(processors),
        memory_bytes: values.parsed("memory", "a size such as 2GiB, at least 64MiB", |text| {
            bytes(text).filter(|&size| size >= 64 << 20)
        })?,
        seed: values.number("seed", 0, u64::MAX)?,
        ingest: ingest(&values)?,
        suspicious: suspicious(&values)?,
    })
}

fn hadoop(values: &Values<'_>, layer: &HadoopLayer) -> Result<Hadoop, Error> {
    Ok(Hadoop {
        conf_dir: values.text("hadoop.conf_dir").map(PathBuf::from),
        files: layer.files.clone(),
        defines: layer.defines.clone(),
        environment: layer.environment.clone(),
        user: values.text("hadoop.user"),
        principal: values.text("hadoop.principal"),
        keytab: values.text("hadoop.keytab").map(PathBuf::from),
        call_timeout: values.time("hadoop.call_timeout")?,
        data_timeout: values.time("hadoop.data_timeout")?,
        patience: values.time("hadoop.patience")?,
        write_patience: values.time("hadoop.write_patience")?,
        umask: values.parsed("hadoop.umask", "three octal digits such as 002", |text| {
            u32::from_str_radix(text, 8)
                .ok()
                .filter(|&mask| mask <= 0o777)
        })?,
    })
}

fn catalog(values: &Values<'_>) -> Result<Catalog, Error> {
    let uris = values.text("catalog.uris").unwrap_or_default();
    let uris = uris.split(',').map(str::trim);
    Ok(Catalog {
        kind: values.parsed(
            "catalog.kind",
            "none, script or metastore",
            |text| match text {
                "none" => Some(CatalogKind::None),
                "script" => Some(CatalogKind::Script),
                "metastore" => Some(CatalogKind::Metastore),
                _ => None,
            },
        )?,
        database: values.parsed(
            "catalog.database",
            "a name of lower case letters, digits and _",
            |text| {
                let is_name =
                    |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                let is_plain = !text.is_empty() && text.bytes().all(is_name);
                is_plain.then(|| text.to_owned())
            },
        )?,
        uris: uris
            .filter(|uri| !uri.is_empty())
            .map(str::to_owned)
            .collect(),
        conf_dir: values.text("catalog.conf_dir").map(PathBuf::from),
        call_timeout: values.time("catalog.call_timeout")?,
        patience: values.time("catalog.patience")?,
    })
}

fn pool(values: &Values<'_>) -> Result<Pool, Error> {
    let path = |key: &str| values.text(key).map(PathBuf::from);
    let (authority, certificate, key) = (
        path("cluster.tls.ca"),
        path("cluster.tls.cert"),
        path("cluster.tls.key"),
    );
    let is_partly = authority.is_some() || certificate.is_some() || key.is_some();
    let tls = match (authority, certificate, key) {
        (Some(authority), Some(certificate), Some(key)) => Some(Tls {
            authority,
            certificate,
            key,
        }),
        _ => None,
    };
    let missing = ["cluster.tls.ca", "cluster.tls.cert", "cluster.tls.key"];
    if tls.is_none()
        && is_partly
        && let Some(key) = missing.into_iter().find(|key| values.text(key).is_none())
    {
        return values.parsed(key, "a file, as the other two of cluster.tls are", |_| None);
    }
    Ok(Pool {
        secret: path("pool.secret"),
        tls,
        wait: values.time("pool.patience")?,
        min_workers: values.number("pool.min_workers", 1, 100_000)?,
        poll: values.time("pool.poll")?,
    })
}

fn cluster(values: &Values<'_>) -> Result<Cluster, Error> {
    let seconds = |key: &str, least: u64| {
        values.parsed(key, &format!("a time of {least}s or more"), |text| {
            let time = milliseconds(text).map(Duration::from_millis);
            time.filter(|time| *time >= Duration::from_secs(least))
        })
    };
    let heartbeat = values.parsed("cluster.heartbeat", "a time of 500ms to 5s", |text| {
        let time = milliseconds(text).filter(|time| HEARTBEAT_MS.contains(time));
        time.map(Duration::from_millis)
    })?;
    Ok(Cluster {
        bind: values.parsed("cluster.bind", "an address such as 0.0.0.0", |text| {
            text.parse().ok()
        })?,
        port: values.number("cluster.port", 0, u16::MAX)?,
        external_host: values.text("cluster.external_host"),
        heartbeat,
        worker_timeout: worker_timeout(values, heartbeat)?,
        waits: Waits {
            connect: seconds("cluster.connect_timeout", 1)?,
            answer: seconds("cluster.answer_timeout", 1)?,
            fetch: seconds("cluster.fetch_timeout", 1)?,
            keep_alive: seconds("cluster.keep_alive", 1)?,
        },
        job_timeout: seconds("cluster.job_timeout", 1)?,
        max_reruns: values.number("cluster.max_reruns", 0, 1000)?,
        train_from: values.number("cluster.train_from", 1, u64::MAX)?,
        message_bytes: values.parsed(
            "cluster.message_size",
            "a size such as 64MiB, at most 1GiB",
            |text| {
                let size = bytes(text).filter(|size| (1 << 20..=1 << 30).contains(size));
                size.and_then(|size| usize::try_from(size).ok())
            },
        )?,
    })
}

/// One heartbeat may come late.
fn worker_timeout(values: &Values<'_>, heartbeat: Duration) -> Result<Duration, Error> {
    let least = heartbeat + Duration::from_secs(2);
    let wanted = format!(
        "a time of {}s or more, two seconds more than cluster.heartbeat",
        least.as_secs_f64()
    );
    values.parsed("cluster.worker_timeout", &wanted, |text| {
        let time = milliseconds(text).map(Duration::from_millis);
        time.filter(|time| *time >= least)
    })
}

fn ingest(values: &Values<'_>) -> Result<Ingest, Error> {
    Ok(Ingest {
        event_time: values.parsed(
            "ingest.event_time",
            "start or received",
            |text| match text {
                "start" => Some(EventTime::Start),
                "received" => Some(EventTime::Received),
                _ => None,
            },
        )?,
        slack_ms: values.parsed("ingest.slack", TIME, milliseconds)?,
        split_bytes: values.parsed("ingest.split_bytes", "a size such as 256MiB", |text| {
            bytes(text).filter(|&size| size > 0)
        })?,
        rejects_max: values.number("ingest.rejects_max", 0.0, 1.0)?,
        settle_ms: values.parsed("ingest.settle", TIME, milliseconds)?,
    })
}

fn suspicious(values: &Values<'_>) -> Result<Suspicious, Error> {
    let max_results: i64 = values.number("suspicious.max_results", -1, i64::MAX)?;
    Ok(Suspicious {
        compat_spot: values.choice("suspicious.compat", ["mended", "spot"])?,
        has_model: values.choice("suspicious.model", ["none", "lda"])?,
        em: values.choice("suspicious.optimizer", ["online", "em"])?,
        topics: values.number("suspicious.topics", 1, 56)?,
        models: values.number("suspicious.models", 1, 100)?,
        token_models: values.number("suspicious.token_models", 1, 100)?,
        alpha: values.number("suspicious.alpha", 1.000_001, 1000.0)?,
        beta: values.number("suspicious.beta", 1.000_001, 1000.0)?,
        iterations: values.number("suspicious.iterations", 1, 100_000)?,
        online_epochs: values.number("suspicious.online_epochs", 0, 1000)?,
        held_out: values.number("suspicious.held_out", 0, 50)?,
        threshold: values.number("suspicious.threshold", 0.0, 1.0)?,
        max_results: usize::try_from(max_results).ok().filter(|&rows| rows > 0),
        groups: values.number("suspicious.groups", 1, 10_000_000)?,
        half_b: values.number("suspicious.half_b", 0.0, 1.0)?,
    })
}

impl Values<'_> {
    fn parsed<T>(
        &self,
        key: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let (value, origin) = &self.0[key];
        parse(value).ok_or_else(|| Error::Value {
            origin: origin.clone(),
            key: key.to_owned(),
            value: value.clone(),
            wanted: wanted.to_owned(),
        })
    }

    fn number<T: Copy + FromStr + PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        least: T,
        most: T,
    ) -> Result<T, Error> {
        let wanted = format!("{least} to {most}");
        self.parsed(key, &wanted, |text| {
            let number = text.parse().ok()?;
            (number >= least && number <= most).then_some(number)
        })
    }

    /// The text of a key that may be empty.
    fn text(&self, key: &str) -> Option<String> {
        let text = &self.0[key].0;
        (!text.is_empty()).then(|| text.clone())
    }

    fn time(&self, key: &str) -> Result<Duration, Error> {
        let time = |text: &str| milliseconds(text).map(Duration::from_millis);
        self.parsed(key, TIME, time)
    }

    /// True for the second choice.
    fn choice(&self, key: &str, choices: [&str; 2]) -> Result<bool, Error> {
        let wanted = choices.join(" or ");
        self.parsed(key, &wanted, |text| {
            choices
                .iter()
                .position(|choice| *choice == text)
                .map(|index| index == 1)
        })
    }
}

fn location(text: &str) -> Option<Location> {
    // Such characters would be taken for patterns when table files are read.
    if text.contains(['*', '?', '[', ']', '{', '}']) {
        return None;
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("file", text));
    let slash = rest.find('/')?;
    let (authority, path) = rest.split_at(slash);
    let is_known = match scheme {
        "file" => authority.is_empty(),
        "hdfs" | "viewfs" => true,
        _ => false,
    };
    // A slash at the end, or two in a row, would make another text of the same folder.
    let path: PathBuf = PathBuf::from(path).components().collect();
    is_known.then(|| Location {
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path,
    })
}

/// Parses 4096, 64KiB, 256MiB, 2GiB.
fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
    let split = |(unit, shift): (&str, u32)| Some((text.strip_suffix(unit)?, shift));
    let (number, shift) = units.into_iter().find_map(split).unwrap_or((text, 0));
    let number: u64 = number.trim().parse().ok()?;
    number.checked_mul(1 << shift)
}

/// Parses 250ms, 90s, 5m, 1h, 2d.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let units = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let split = |(unit, factor): (&str, u64)| Some((text.strip_suffix(unit)?, factor));
    let (number, factor) = units.into_iter().find_map(split)?;
    let number: u64 = number.trim().parse().ok()?;
    number.checked_mul(factor)
}
