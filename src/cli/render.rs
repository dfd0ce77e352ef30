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

use indicatif::MultiProgress;
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
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

struct State {
    /// By what they show.
    bars: BTreeMap<String, ProgressBar>,
    /// When each piece of work last had a line.
    told: BTreeMap<String, Instant>,
}

impl Renderer {
    /// Bars on a terminal, lines elsewhere.
    pub(super) fn new() -> Self {
        let has_bars = std::io::stderr().is_terminal() && form() == Form::Text;
        Self::with(has_bars.then(MultiProgress::new))
    }

    /// Lines, for several pieces of work at a time.
    pub(super) fn of_lines() -> Self {
        Self::with(None)
    }

    fn with(bars: Option<MultiProgress>) -> Self {
        Self {
            bars,
            state: Mutex::new(State {
                bars: BTreeMap::new(),
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
        match &self.bars {
            Some(bars) => bars.suspend(|| tell(severity, text)),
            None => tell(severity, text),
        }
    }

    fn progress(&self, label: &str, done: u64, total: u64, note: &str) {
        let mut state = self.state();
        let Some(bars) = &self.bars else {
            let is_due = |told: &Instant| told.elapsed() >= LINE_EVERY;
            if state.told.get(label).is_none_or(is_due) {
                state.told.insert(label.to_owned(), Instant::now());
                say(&format!("{label}: {done} of {total}{}", behind_comma(note)));
            }
            return;
        };
        // What comes after has bars of its own.
        state.bars.retain(|known, bar| {
            let is_of_same = step(known) == step(label);
            if !is_of_same {
                bar.finish_and_clear();
            }
            is_of_same
        });
        let new = || bars.add(ProgressBar::new(total).with_style(style()));
        let bar = state.bars.entry(label.to_owned()).or_insert_with(new);
        if done < total && bar.is_finished() {
            bar.reset();
        }
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(format!("{label}{}", behind_comma(note)));
        if done >= total {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        for bar in self.state().bars.values() {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The step that a label begins with: its stages, or models, have bars at the same time.
fn step(label: &str) -> &str {
    label.split([',', ':']).next().unwrap_or_default()
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
