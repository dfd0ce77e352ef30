//! What a run read and wrote, as events of OpenLineage (its specification, version 2: RunEvent), one JSON map a line.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context as _;
use chrono::DateTime;
use chrono::SecondsFormat;
use chrono::Utc;
use serde_json::Value;
use serde_json::json;

use crate::cli::outcome::Results;
use crate::job::DayResult;
use crate::job::Job;
use crate::step::Outcome;
use crate::store::fingerprint;

const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
const PRODUCER: &str = concat!("klieg/", env!("CARGO_PKG_VERSION"));

/// Appends a START and a COMPLETE or FAIL of each day or hour that a run published or failed on.
pub(super) fn append(
    path: &Path,
    results: &Results,
    job: &Job,
    now: SystemTime,
) -> anyhow::Result<()> {
    let mut text = String::new();
    for (period, result) in &results.days {
        let (kind, steps, seconds) = match result {
            DayResult::Done(outcome) => ("COMPLETE", outcome.steps.as_slice(), outcome.seconds),
            DayResult::Failed(_) => ("FAIL", &[] as &[Outcome], 0.0),
            DayResult::NotSelected | DayResult::NotBegun => continue,
        };
        let steps: Vec<_> = steps.iter().filter(|step| step.published).collect();
        if kind == "COMPLETE" && steps.is_empty() {
            continue;
        }
        let name = format!("{} {period}", results.run_id);
        let (inputs, outputs) = (inputs(&steps), outputs(&steps));
        let start = now.checked_sub(Duration::from_secs_f64(seconds));
        for (kind, time) in [("START", start.unwrap_or(now)), (kind, now)] {
            let event = json!({
                "eventType": kind,
                "eventTime": DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true),
                "run": { "runId": uuid(&name) },
                "job": { "namespace": "klieg", "name": format!("{}.{period}", job.name) },
                "inputs": inputs,
                "outputs": outputs,
                "producer": PRODUCER,
                "schemaURL": SCHEMA,
            });
            text += &event.to_string();
            text.push('\n');
        }
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| path.display().to_string())
}

fn inputs(steps: &[&Outcome]) -> Vec<Value> {
    let inputs = steps
        .iter()
        .filter_map(|step| step.report["inputs"].as_array());
    let paths = inputs.flatten().filter_map(|input| input["path"].as_str());
    paths.map(dataset).collect()
}

fn outputs(steps: &[&Outcome]) -> Vec<Value> {
    let outputs = steps.iter().flat_map(|step| &step.outputs);
    outputs.map(|url| dataset(url)).collect()
}

/// `hdfs://namenode:8020` and the path, as OpenLineage names datasets.
fn dataset(url: &str) -> Value {
    let end = url.find("://").and_then(|scheme| {
        let rest = url.get(scheme + 3..)?;
        Some(scheme + 3 + rest.find('/')?)
    });
    let (namespace, name) = url.split_at(end.unwrap_or(0));
    let namespace = if namespace.is_empty() {
        "file"
    } else {
        namespace
    };
    json!({ "namespace": namespace, "name": name })
}

/// A UUID of version 8 (RFC 9562, 5.8) that depends on a name alone.
fn uuid(name: &str) -> String {
    let digits = fingerprint([name, "1"].into_iter()) + &fingerprint([name, "2"].into_iter());
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}
