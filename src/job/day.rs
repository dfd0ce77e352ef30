//! One day or hour: locked, its steps run, its report written.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use crate::engine::Engine;
use crate::engine::Local;
use crate::job::DayError;
use crate::job::DayOutcome;
use crate::job::Job;
use crate::job::Record;
use crate::job::Reprocess;
use crate::job::RunOptions;
use crate::job::Status;
use crate::job::StepKind;
use crate::job::repair::recover_key;
use crate::job::run::owner;
use crate::step;
use crate::step::Context;
use crate::step::Events;
use crate::step::Outcome;
use crate::step::Severity;
use crate::step::StepError;
use crate::step::Work;
use crate::step::inputs::SharedLandings;
use crate::store::DayLock;
use crate::store::LockError;
use crate::store::Staging;
use crate::store::fingerprint;
use crate::table::hive::Layout;
use crate::table::period::Period;

/// How often a lock of another run is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(2);

/// A failure whose report is written for longer is told before it is.
const REPORT_PAUSE: Duration = Duration::from_secs(5);

/// A run of a day or an hour.
pub(super) struct DayRun<'a> {
    job: &'a Job,
    period: Period,
    options: &'a RunOptions,
    landings: &'a SharedLandings,
    events: Noted<'a>,
    work: Work,
    started: Instant,
    clock: SystemTime,
}

/// Passes events on and keeps what is warned of for the report.
struct Noted<'a> {
    events: &'a dyn Events,
    warnings: Mutex<Vec<String>>,
}

impl Events for Noted<'_> {
    fn tell(&self, severity: Severity, text: &str) {
        if severity == Severity::Warning {
            let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            warnings.push(text.to_owned());
        }
        self.events.tell(severity, text);
    }

    fn progress(&self, label: &str, done: u64, total: u64, note: &str) {
        self.events.progress(label, done, total, note);
    }
}

impl<'a> DayRun<'a> {
    pub(super) fn new(
        job: &'a Job,
        period: Period,
        (options, landings): (&'a RunOptions, &'a SharedLandings),
        events: &'a dyn Events,
    ) -> Self {
        Self {
            job,
            period,
            options,
            landings,
            events: Noted {
                events,
                warnings: Mutex::default(),
            },
            work: Work::default(),
            started: Instant::now(),
            clock: (options.now)(),
        }
    }

    /// Locks the day, runs the steps, writes the run report; looks first whether there is anything to do.
    ///
    /// # Errors
    /// The first step that fails; what earlier steps published stays.
    pub(super) async fn run(&self) -> Result<DayOutcome, DayError> {
        let Self { job, options, .. } = self;
        let store = &options.store;
        let key = job.partition(self.period).key();
        let layout = &Layout::new(store.root(), job.pipeline.name());
        if let Some(steps) = self.up_to_date(&key, layout)? {
            return self.write_published(&steps);
        }
        let lock = self.wait_for_lock(&key)?;
        for run in recover_key(options, &key, &lock)? {
            let period = self.period;
            self.events.line(&format!(
                "{period}: finished what run {run} had begun to publish"
            ));
        }
        let staging = Staging::create(store, &key, &options.run_id)?;
        let engine = self.engine(&staging)?;
        let context = Context {
            config: &job.config,
            store,
            lock: &lock,
            layout,
            period: self.period,
            engine: engine.as_ref(),
            staging: &staging,
            landings: self.landings,
            events: &self.events,
            redo: options.reprocess == Reprocess::All,
            adopt: options.adopt,
            work: &self.work,
            now: options.now,
        };
        self.run_steps(&context).await
    }

    /// Workers where the run has a cluster, else this process.
    fn engine(&self, staging: &Staging) -> Result<Arc<dyn Engine>, DayError> {
        let config = &self.job.config;
        if let Some(cluster) = &self.options.cluster {
            let tell = |text: &str| self.events.line(text);
            return Ok(cluster.get(&tell).map_err(DayError::Cluster)?);
        }
        let local = Local::try_new(
            config.threads,
            config.memory_bytes,
            &staging.folder("spill")?,
            &self.options.store,
        )?;
        Ok(Arc::new(local))
    }

    /// Returns what is published where all of it is up to date: that needs neither lock nor staging.
    fn up_to_date(&self, key: &str, layout: &Layout) -> Result<Option<Vec<Outcome>>, DayError> {
        let Self { job, options, .. } = self;
        let (config, store, period) = (&job.config, &options.store, self.period);
        if options.reprocess == Reprocess::All || store.is_half_published(key)? {
            return Ok(None);
        }
        let mut steps = Vec::with_capacity(job.steps.len());
        for kind in &job.steps {
            let current = match kind {
                StepKind::Ingest => {
                    step::ingest::up_to_date((config, store), layout, self.landings, period)
                }
                StepKind::Suspicious => {
                    step::suspicious::up_to_date(config, store, layout, period.day)
                }
            };
            match current {
                Ok(Some(outcome)) => steps.push(outcome),
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.failed(*kind, &[], error)),
            }
        }
        if job.steps.contains(&StepKind::Ingest) {
            let landings = self.landings.get(config, store, layout)?;
            step::ingest::tell_unfinished(&self.events, &landings.unfinished());
        }
        for outcome in &steps {
            step::tell_up_to_date(&self.events, period, outcome);
        }
        Ok(Some(steps))
    }

    /// Writes the record of a step that failed after others.
    fn failed(&self, kind: StepKind, steps: &[Outcome], error: StepError) -> DayError {
        let step = kind.name();
        let mut failure = json!({ "step": step, "error": error.to_string(), "steps": steps });
        self.work.take_into(&mut failure);
        let record = self.record((Status::Failed, failure));
        std::thread::scope(|scope| {
            let (send, written) = std::sync::mpsc::channel();
            // The failure itself is what to tell, also where its report cannot be written.
            scope.spawn(move || send.send(record.write(&self.options.store)));
            if written.recv_timeout(REPORT_PAUSE).is_err() {
                let period = self.period;
                let text = format!(
                    "{period}: {step} failed: {error}; its report is being written, for at most hadoop.write_patience"
                );
                self.events.tell(Severity::Warning, &text);
            }
        });
        DayError::Step { step, error }
    }

    async fn run_steps(&self, context: &Context<'_>) -> Result<DayOutcome, DayError> {
        let kinds = &self.job.steps;
        let mut steps = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let started = Instant::now();
            let outcome = match kind {
                StepKind::Ingest => step::ingest::run(context).await,
                StepKind::Suspicious => step::suspicious::run(context).await,
            };
            if let Some(cluster) = &self.options.cluster {
                cluster.tell_refused(&|text: &str| self.events.line(text));
            }
            match outcome {
                Ok(mut outcome) => {
                    outcome.seconds = started.elapsed().as_secs_f64();
                    steps.push(outcome);
                    // A run that is killed later has published this all the same.
                    if steps.len() < kinds.len() {
                        self.write_published(&steps)?;
                    }
                }
                Err(error) => return Err(self.failed(*kind, &steps, error)),
            }
        }
        self.write_published(&steps)
    }

    /// Takes the lock of the day, waiting for another run where that is asked for.
    fn wait_for_lock(&self, key: &str) -> Result<DayLock, LockError> {
        let options = self.options;
        let mut is_told = false;
        loop {
            match DayLock::take(&options.store, key, &owner(&options.run_id)) {
                Err(LockError::Held { path, owner })
                    if self.started.elapsed() < options.lock_wait =>
                {
                    if !is_told {
                        let period = self.period;
                        self.events
                            .line(&format!("{period}: waiting for {path} ({owner})"));
                        is_told = true;
                    }
                    let left = options.lock_wait.saturating_sub(self.started.elapsed());
                    std::thread::sleep(LOCK_PAUSE.min(left));
                }
                taken => return taken,
            }
        }
    }

    /// Writes the record, where a step has published.
    fn write_published(&self, steps: &[Outcome]) -> Result<DayOutcome, DayError> {
        let outcome = DayOutcome {
            day: self.period.to_string(),
            steps: steps.to_vec(),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        if steps.iter().any(|step| step.published) {
            let record = self.record((Status::Published, json!(outcome)));
            record.write(&self.options.store)?;
        }
        Ok(outcome)
    }

    fn record(&self, (status, outcome): (Status, Value)) -> Record {
        let job = self.job;
        let started = chrono::DateTime::<chrono::Utc>::from(self.clock);
        let settings = job.config.texts.iter();
        let settings: Vec<_> = settings
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let warnings = &self.events.warnings;
        Record {
            run: self.options.run_id.clone(),
            job: job.name.clone(),
            pipeline: job.pipeline.name().to_owned(),
            day: self.period.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status,
            started: started.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            seconds: self.started.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
            input_bytes: input_bytes(&outcome),
            configuration: job.config.texts.clone(),
            configuration_hash: fingerprint(settings.iter().map(String::as_str)),
            seed: job.config.seed,
            warnings: warnings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            outcome,
        }
    }
}

/// Length of the raw files that the steps read.
fn input_bytes(outcome: &Value) -> u64 {
    let steps = outcome["steps"].as_array().into_iter().flatten();
    let published = steps.filter(|step| step["published"].as_bool() == Some(true));
    let inputs = published.filter_map(|step| step["report"]["inputs"].as_array());
    let bytes = inputs.flatten().filter_map(|input| input["bytes"].as_u64());
    bytes.sum()
}

/// The most memory that this process had, where Linux tells it (`VmHWM`).
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
