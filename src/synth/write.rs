//! A generated day as files: nfcapd by five minutes, labels, attacks, the site.

use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::Int32Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use chrono::DateTime;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use crate::synth::Labelled;
use crate::synth::SynthDay;
use crate::synth::traffic::EXPORTERS;
use crate::table;
use crate::table::parquet::HiveType;
use crate::wire::nfcapd::Compression;
use crate::wire::nfcapd::Encoder;
use crate::wire::nfcapd::Exporter;

/// A file holds what was sent in so many milliseconds.
const FILE_MS: u64 = 300_000;

/// Columns of `labels.parquet`: file, number of the record in it from 0, attack or null, kind or null.
const LABEL_COLUMNS: [(&str, HiveType); 4] = [
    ("file", HiveType::String),
    ("record", HiveType::Int),
    ("attack", HiveType::Int),
    ("kind", HiveType::String),
];

/// What was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written {
    /// nfcapd files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct WriteError {
    /// Which.
    pub path: String,
    /// Why.
    #[source]
    pub error: io::Error,
}

/// Writes nfcapd files to `landing`, and `labels.parquet`, `attacks.json`, `site.yaml` to `truth`.
///
/// # Errors
/// The first file that cannot be written.
pub fn write(
    day: &SynthDay,
    compression: Compression,
    landing: &Path,
    truth: &Path,
) -> Result<Written, WriteError> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| WriteError { path, error }
    };
    for folder in [landing, truth] {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let mut written = Written { files: 0, bytes: 0 };
    let mut labels = Labels::default();
    for group in day
        .records
        .chunk_by(|left, right| slot(left) == slot(right))
    {
        let name = file_name(slot(&group[0]));
        let path = landing.join(&name);
        written.bytes += write_file(&path, group, compression).map_err(at(&path))?;
        written.files += 1;
        labels.add(&name, group, day);
    }
    let path = truth.join("labels.parquet");
    labels
        .write(&path)
        .map_err(|error| at(&path)(io::Error::other(error)))?;
    let path = truth.join("attacks.json");
    let text =
        serde_json::to_string_pretty(&day.attacks).map_err(|error| at(&path)(error.into()))?;
    std::fs::write(&path, text).map_err(at(&path))?;
    let path = truth.join("site.yaml");
    std::fs::write(&path, day.site.yaml()).map_err(at(&path))?;
    Ok(written)
}

fn slot(labelled: &Labelled) -> u64 {
    labelled.sent_ms / FILE_MS
}

fn file_name(slot: u64) -> String {
    let time = i64::try_from(slot * FILE_MS)
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    format!("nfcapd.{}", time.unwrap_or_default().format("%Y%m%d%H%M"))
}

fn write_file(path: &Path, records: &[Labelled], compression: Compression) -> io::Result<u64> {
    let exporter = |ip| Exporter {
        ip: IpAddr::V4(ip),
        version: 9,
        domain: 0,
    };
    let exporters: Vec<_> = (1..).zip(EXPORTERS.map(exporter)).collect();
    let out = BufWriter::new(File::create(path)?);
    let mut encoder = Encoder::try_new(out, compression, &exporters)?;
    for labelled in records {
        encoder.push(&labelled.record)?;
    }
    // The file is complete when its last slot is.
    let created_s = records
        .last()
        .map_or(0, |last| (slot(last) + 1) * FILE_MS / 1000);
    let file = encoder.finish(created_s)?.into_inner()?;
    Ok(file.metadata()?.len())
}

#[derive(Default)]
struct Labels {
    files: Vec<String>,
    records: Vec<i32>,
    attacks: Vec<Option<i32>>,
    kinds: Vec<Option<&'static str>>,
}

impl Labels {
    fn add(&mut self, name: &str, records: &[Labelled], day: &SynthDay) {
        for (number, labelled) in (0..).zip(records) {
            self.files.push(name.to_owned());
            self.records.push(number);
            self.attacks.push(labelled.attack.map(i32::from));
            let kind = labelled
                .attack
                .and_then(|attack| day.attacks.get(usize::from(attack)));
            self.kinds.push(kind.map(|attack| attack.kind));
        }
    }

    fn write(self, path: &Path) -> Result<(), ParquetError> {
        let schema = table::parquet::schema(&LABEL_COLUMNS);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(self.files)),
            Arc::new(Int32Array::from(self.records)),
            Arc::new(Int32Array::from(self.attacks)),
            Arc::new(StringArray::from(self.kinds)),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let mut writer = ArrowWriter::try_new_with_options(
            File::create(path)?,
            schema,
            table::parquet::options(),
        )?;
        writer.write(&batch)?;
        writer.finish()?;
        Ok(())
    }
}
