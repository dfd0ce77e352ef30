//! Metrics of a run in the text form of Prometheus, for the textfile collector of its node exporter.

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::cli::outcome::Results;
use crate::job::Job;

const LAST_SUCCESS: &str = "klieg_last_success_timestamp_seconds";

/// A metric: name, help, and value or labels with their values.
struct Gauge<'a> {
    name: &'a str,
    help: &'a str,
    values: Vec<(String, f64)>,
}

/// Returns the metrics of a run. A run that failed keeps the time of the last success, which is read from the file that it replaces.
#[expect(clippy::cast_precision_loss, reason = "counts in a text of metrics")]
pub(super) fn text(results: &Results, job: &Job, (path, now): (&Path, SystemTime)) -> String {
    let labels = format!(
        "job=\"{}\",pipeline=\"{}\"",
        escaped(&job.name),
        job.pipeline.name()
    );
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let success = match results.failed() {
        0 => Some(now.as_secs_f64().floor()),
        _ => last_success(path, &labels),
    };
    let one = |value: f64| vec![(labels.clone(), value)];
    let properties = results.properties(job);
    let count = |key: &str| {
        let found = properties.iter().find(|(name, _)| *name == key);
        found
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0.0)
    };
    let partitions = ["ok", "failed", "skipped"].map(|status| {
        let value = count(&format!("partitions_{status}"));
        (format!("{labels},status=\"{status}\""), value)
    });
    let seconds: f64 = results.done().map(|outcome| outcome.seconds).sum();
    let gauges = [
        Gauge {
            name: LAST_SUCCESS,
            help: "End of the last run without a failure, seconds since 1970.",
            values: success.map(one).unwrap_or_default(),
        },
        Gauge {
            name: "klieg_last_run_timestamp_seconds",
            help: "End of the last run, seconds since 1970.",
            values: one(now.as_secs_f64().floor()),
        },
        Gauge {
            name: "klieg_last_run_duration_seconds",
            help: "Seconds that its days or hours took together.",
            values: one(seconds),
        },
        Gauge {
            name: "klieg_last_run_rows",
            help: "Rows of the raw table of its days or hours.",
            values: one(results.rows() as f64),
        },
        Gauge {
            name: "klieg_last_run_partitions",
            help: "Its days or hours by what happened to them.",
            values: partitions.to_vec(),
        },
        Gauge {
            name: "klieg_last_run_records",
            help: "Raw records that it read, by where they went.",
            values: records(results, &labels),
        },
    ];
    rendered(gauges)
}

fn rendered<const N: usize>(gauges: [Gauge<'_>; N]) -> String {
    let mut text = String::new();
    for Gauge { name, help, values } in gauges {
        // Writing to a String cannot fail.
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in values {
            _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "counts in a text of metrics")]
fn records(results: &Results, labels: &str) -> Vec<(String, f64)> {
    let steps = results.done().flat_map(|outcome| &outcome.steps);
    let published: Vec<_> = steps.filter(|step| step.published).collect();
    let sum = |of: &dyn Fn(&serde_json::Value) -> u64| -> f64 {
        let counts = published.iter().map(|step| of(&step.report["counts"]));
        counts.sum::<u64>() as f64
    };
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
    let mut records: Vec<_> = ["kept", "outside"]
        .map(|place| (place, sum(&|counts| number(&counts[place]))))
        .to_vec();
    let rejected = sum(&|counts| {
        let reasons = counts["rejected"].as_object();
        reasons
            .into_iter()
            .flat_map(|map| map.values())
            .map(number)
            .sum()
    });
    records.push(("rejected", rejected));
    let records = records.into_iter();
    records
        .map(|(place, value)| (format!("{labels},place=\"{place}\""), value))
        .collect()
}

fn last_success(path: &Path, labels: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let prefix = format!("{LAST_SUCCESS}{{{labels}}} ");
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(&prefix)?.parse().ok())
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}
