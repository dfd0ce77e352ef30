//! What a run tells a scheduler: status, exit code, a summary on stdout and in a file.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::cli::exit;
use crate::job::DayOutcome;
use crate::job::DayResult;
use crate::job::Job;
use crate::table::period::Period;

/// Oozie fails an action that captures more bytes of properties.
const PROPERTIES_MAX: usize = 2048;
/// Why a day was not begun.
const NOT_SELECTED: &str = "not selected by --reprocess";
const NOT_BEGUN: &str = "not begun, --max-failures was reached";

/// What happened to each day or hour.
pub(super) struct Results {
    pub(super) run_id: String,
    pub(super) days: Vec<(Period, DayResult)>,
}

/// Names and values for a scheduler.
pub(super) type Properties = Vec<(&'static str, String)>;

impl Results {
    pub(super) fn done(&self) -> impl Iterator<Item = &DayOutcome> {
        self.days.iter().filter_map(|(_, result)| match result {
            DayResult::Done(outcome) => Some(outcome),
            _ => None,
        })
    }

    fn codes(&self) -> impl Iterator<Item = u8> {
        self.days.iter().filter_map(|(_, result)| code(result))
    }

    pub(super) fn failed(&self) -> usize {
        self.codes().filter(|&code| code != 0).count()
    }

    fn published(&self) -> usize {
        self.done().filter(|outcome| has_published(outcome)).count()
    }

    /// 0; the code of the failure where every day that was begun failed alike; 1 where some failed.
    pub(super) fn exit_code(&self) -> u8 {
        let mut codes = self.codes();
        let first = codes.next().unwrap_or(0);
        if codes.all(|code| code == first) {
            first
        } else {
            exit::FAILED
        }
    }

    fn status(&self) -> &'static str {
        match self.exit_code() {
            0 if self.published() == 0 => "nothing",
            1 if self.failed() < self.days.len() => "partial",
            code => exit::status(code),
        }
    }

    pub(super) fn rows(&self) -> u64 {
        let first = self.done().filter_map(|outcome| outcome.steps.first());
        first.map(|step| step.rows).sum()
    }

    /// True where the run had nothing to publish.
    pub(super) fn is_idle(&self) -> bool {
        self.failed() == 0 && self.published() == 0
    }

    pub(super) fn properties(&self, job: &Job) -> Properties {
        let (published, failed) = (self.published(), self.failed());
        let others = self.days.len() - published - failed;
        let root = &job.config.warehouse;
        vec![
            ("status", self.status().to_owned()),
            ("run_id", self.run_id.clone()),
            ("partitions_ok", published.to_string()),
            ("partitions_failed", failed.to_string()),
            ("partitions_skipped", others.to_string()),
            ("rows", self.rows().to_string()),
            ("output_path", root.to_string()),
            ("report", format!("{root}/.klieg/history/{}", self.run_id)),
        ]
    }

    pub(super) fn print_json(&self, job: &Job) -> anyhow::Result<()> {
        let days = self.days.iter().map(|(day, result)| json_of(*day, result));
        let value = json!({
            "run_id": self.run_id,
            "job": job.name,
            "status": self.status(),
            "days": days.collect::<Vec<_>>(),
        });
        let mut out = std::io::stdout().lock();
        // One line: schedulers keep the last one.
        serde_json::to_writer(&mut out, &value)?;
        writeln!(out)?;
        Ok(())
    }

    pub(super) fn print_table(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{:<13}  {:<10}  {:<10}  {:>12}  result",
            "day", "step", "status", "rows"
        )?;
        for (day, result) in &self.days {
            print_day(&mut out, *day, result)?;
        }
        Ok(())
    }
}

/// Returns `key=value` lines, as Java reads properties; the last ones are left out where they would be too long for Oozie.
pub(super) fn lines(properties: &Properties) -> String {
    let mut text = String::new();
    for (key, value) in properties {
        let value = value.replace('\\', "\\\\").replace(['\n', '\r'], " ");
        let line = format!("{key}={value}\n");
        if text.len() + line.len() <= PROPERTIES_MAX {
            text += &line;
        }
    }
    text
}

/// Writes properties, or a JSON map, to a file in one step.
pub(super) fn write(path: &Path, properties: &Properties, as_json: bool) -> anyhow::Result<()> {
    let text = match as_json {
        true => {
            let pairs = properties.iter();
            let map: serde_json::Map<_, _> = pairs
                .map(|(key, value)| ((*key).to_owned(), Value::from(value.clone())))
                .collect();
            Value::Object(map).to_string()
        }
        false => lines(properties),
    };
    replace(path, &text)
}

/// Writes a file under another name first, so that nobody reads half of it.
pub(super) fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".tmp");
    let written = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, path));
    written.with_context(|| path.display().to_string())
}

/// 0 or the code of a failure; `None` for a day that was not begun.
fn code(result: &DayResult) -> Option<u8> {
    match result {
        DayResult::Done(_) => Some(0),
        DayResult::Failed(error) => Some(exit::day_code(error)),
        DayResult::NotSelected | DayResult::NotBegun => None,
    }
}

fn has_published(outcome: &DayOutcome) -> bool {
    outcome.steps.iter().any(|step| step.published)
}

fn json_of(day: Period, result: &DayResult) -> Value {
    let day = day.to_string();
    match result {
        DayResult::Done(outcome) => json!({ "day": day, "status": "ok", "outcome": outcome }),
        DayResult::Failed(error) => json!({
            "day": day,
            "status": "failed",
            "error": error.to_string(),
            "exit_code": exit::day_code(error),
        }),
        DayResult::NotSelected => {
            json!({ "day": day, "status": "skipped", "reason": NOT_SELECTED })
        }
        DayResult::NotBegun => json!({ "day": day, "status": "skipped", "reason": NOT_BEGUN }),
    }
}

fn print_day(
    out: &mut impl std::io::Write,
    day: Period,
    result: &DayResult,
) -> std::io::Result<()> {
    let outcome = match result {
        DayResult::Done(outcome) => outcome,
        DayResult::Failed(_) => {
            return print_row(out, day, ("", "failed"), "see the message above");
        }
        DayResult::NotSelected => return print_row(out, day, ("", "skipped"), NOT_SELECTED),
        DayResult::NotBegun => return print_row(out, day, ("", "skipped"), NOT_BEGUN),
    };
    for step in &outcome.steps {
        let status = match step.published {
            true => "published",
            false => "skipped",
        };
        let path = step.outputs.first();
        writeln!(
            out,
            "{:<13}  {:<10}  {status:<10}  {:>12}  {}",
            day.to_string(),
            step.step,
            step.rows,
            path.map_or("", String::as_str)
        )?;
    }
    Ok(())
}

fn print_row(
    out: &mut impl std::io::Write,
    day: Period,
    (step, status): (&str, &str),
    note: &str,
) -> std::io::Result<()> {
    let day = day.to_string();
    writeln!(
        out,
        "{day:<13}  {step:<10}  {status:<10}  {:>12}  {note}",
        ""
    )
}
