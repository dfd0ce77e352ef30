//! Events to people: bars on a terminal, plain lines otherwise; all of it on stderr.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use serde_json::json;

use crate::cli::run;
use crate::step::Events;
use crate::step::Severity;

/// Without a terminal, progress is a line this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows events.
pub(super) struct Renderer {
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

struct State {
    /// What the bar shows.
    label: String,
    /// When each piece of work last had a line.
    told: BTreeMap<String, Instant>,
}

impl Renderer {
    /// A bar on a terminal, lines elsewhere.
    pub(super) fn new() -> Self {
        let style =
            ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}, {eta} left");
        let has_bar = std::io::stderr().is_terminal() && form() == Form::Text;
        let bar = has_bar.then(|| {
            let bar = ProgressBar::new(0);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self::with(bar)
    }

    /// Lines, for several pieces of work at a time.
    pub(super) fn of_lines() -> Self {
        Self::with(None)
    }

    fn with(bar: Option<ProgressBar>) -> Self {
        Self {
            bar,
            state: Mutex::new(State {
                label: String::new(),
                told: BTreeMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events for Renderer {
    fn tell(&self, severity: Severity, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(severity, text)),
            None => tell(severity, text),
        }
    }

    fn progress(&self, label: &str, done: u64, total: u64, note: &str) {
        let mut state = self.state();
        let Some(bar) = &self.bar else {
            let is_due = |told: &Instant| told.elapsed() >= LINE_EVERY;
            if state.told.get(label).is_none_or(is_due) {
                state.told.insert(label.to_owned(), Instant::now());
                say(&format!("{label}: {done} of {total}{}", behind_comma(note)));
            }
            return;
        };
        if state.label != label {
            label.clone_into(&mut state.label);
            bar.reset();
        }
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(format!("{label}{}", behind_comma(note)));
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn behind_comma(note: &str) -> String {
    if note.is_empty() {
        String::new()
    } else {
        format!(", {note}")
    }
}

/// Form of what is written to stderr.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Lines as they are.
    Text,
    /// A JSON map a line.
    Json,
    /// Failures only.
    Quiet,
}

static FORM: OnceLock<Form> = OnceLock::new();
static RUN: OnceLock<String> = OnceLock::new();

/// Chooses the form, once.
pub(super) fn set_form(form: Form) {
    _ = FORM.set(form);
}

/// Names the run that lines are of, once.
pub(super) fn set_run(run: &str) {
    drop(RUN.set(run.to_owned()));
}

fn form() -> Form {
    FORM.get().copied().unwrap_or(Form::Text)
}

/// Writes one line to stderr.
pub(super) fn say(text: &str) {
    tell(Severity::Info, text);
}

/// Writes one line with the time to stderr: of a process that stays.
pub(super) fn log(text: &str) {
    let now = chrono::DateTime::<chrono::Utc>::from(run::now());
    let time = now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    say(&format!("{time} {text}"));
}

/// Writes to stderr what was not done and why.
pub(super) fn fail(text: &str) {
    tell(Severity::Failure, text);
}

fn tell(severity: Severity, text: &str) {
    let (level, origin) = match severity {
        Severity::Info => ("INFO", ""),
        Severity::Warning => ("WARN", "warning: "),
        Severity::Failure => ("ERROR", "klieg: "),
    };
    let line = match form() {
        Form::Quiet if severity != Severity::Failure => return,
        Form::Text | Form::Quiet => format!("{origin}{text}"),
        Form::Json => {
            let now = chrono::DateTime::<chrono::Utc>::from(run::now());
            json!({
                "ts": now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
                "level": level,
                "logger": "klieg",
                "run_id": RUN.get(),
                "msg": text,
            })
            .to_string()
        }
    };
    // Nobody is left to tell where stderr is closed.
    drop(writeln!(std::io::stderr(), "{line}"));
}
