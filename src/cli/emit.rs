//! `klieg emit`: forms for schedulers, complete and commented.

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::emit_worker::WorkerForm;
use crate::cli::exit;
use crate::cli::job_args::JobArgs;
use crate::engine::cluster::Authority;
use crate::job::Job;
use crate::table::hive::Layout;

/// Write the forms by which a scheduler runs a job, or a service manager a worker
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(clap::Subcommand, Debug)]
enum Form {
    /// Oozie: workflow and coordinator
    Oozie(JobForm),
    /// Airflow: DAG
    Airflow(JobForm),
    /// Azkaban: job of a flow
    Azkaban(JobForm),
    /// Line of a crontab
    Cron(JobForm),
    /// Worker as a hardened unit of systemd
    Systemd(WorkerForm),
    /// Workers as a service of YARN (Hadoop 3): a Yarnfile
    Yarn(WorkerForm),
    /// Workers as a Deployment of Kubernetes
    Kubernetes(WorkerForm),
    /// Key of a pool, for pool.secret on every node: a secret
    PoolKey,
}

/// A job and how it is scheduled.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  klieg emit oozie jobs/flow.yaml --config site.yaml --out oozie/      workflow.xml, coordinator.xml, job.properties
  klieg emit airflow jobs/flow.yaml --config /etc/klieg/site.yaml --out ~/airflow/dags
  klieg emit azkaban jobs/flow.yaml --at 02:30 --out azkaban/
  klieg emit cron jobs/flow.yaml --config /etc/klieg/site.yaml >> /etc/cron.d/klieg
  klieg emit cron jobs/flow.yaml --steps ingest --hourly --at 00:20

The job and its configuration are checked first. Without --out the forms go to stdout. Every form
runs the day, or with --hourly the hour, that has ended; late raw files make it `changed`, and any
later run of the same day takes them in.")]
struct JobForm {
    #[command(flatten)]
    job: JobArgs,
    /// Folder for the forms; files that exist are not overwritten
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Path of the binary on the machines that run it [default: that of this one]; Oozie brings its own
    #[arg(long, value_name = "PATH")]
    klieg: Option<String>,
    /// When it runs, HH:MM; with --hourly the minutes count. After the last raw file of the day has landed
    #[arg(long, value_name = "TIME", default_value = "02:30", value_parser = parse_at)]
    at: (u8, u8),
    /// The longest time of one run
    #[arg(long, value_name = "TIME", default_value = "6h")]
    timeout: String,
    /// Each hour alone; only for steps that take hours
    #[arg(long)]
    hourly: bool,
}

/// Airflow takes it for skipped.
const SKIP: &str = "99";

fn parse_at(text: &str) -> Result<(u8, u8), String> {
    let parts = text.split_once(':');
    let parsed = parts.and_then(|(hour, minute)| Some((hour.parse().ok()?, minute.parse().ok()?)));
    let time = parsed.filter(|&(hour, minute): &(u8, u8)| hour < 24 && minute < 60);
    time.ok_or_else(|| format!("`{text}` is no time of the day such as 02:30"))
}

/// Replacements of one form.
pub(super) type Values<'a> = Vec<(&'a str, String)>;

pub(super) fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.form {
        Form::Oozie(form) => form.emit(JobForm::oozie),
        Form::Airflow(form) => form.emit(JobForm::airflow),
        Form::Azkaban(form) => {
            form.emit(|form, job| vec![(format!("{}.job", job.name), form.azkaban(job))])
        }
        Form::Cron(form) => {
            form.emit(|form, job| vec![(format!("{}.cron", job.name), form.crontab(job))])
        }
        Form::Systemd(form) => show(form.out(), &form.systemd()?),
        Form::Yarn(form) => show(form.out(), &form.yarn()?),
        Form::Kubernetes(form) => show(form.out(), &form.kubernetes()?),
        Form::PoolKey => {
            let key = Authority::generate()?;
            std::io::stdout().lock().write_all(key.text().as_bytes())?;
            Ok(exit::DONE)
        }
    }
}

/// Names and texts of files.
pub(super) type Forms = Vec<(String, String)>;

impl JobForm {
    fn emit(&self, forms: impl Fn(&Self, &Job) -> Forms) -> anyhow::Result<u8> {
        let job = check(self)?;
        show(self.out.as_deref(), &forms(self, &job))
    }

    fn oozie(&self, job: &Job) -> Forms {
        vec![
            ("workflow.xml".to_owned(), self.workflow(job)),
            ("coordinator.xml".to_owned(), self.coordinator(job)),
            ("job.properties".to_owned(), self.properties(job)),
        ]
    }

    fn airflow(&self, job: &Job) -> Forms {
        let name = job.name.replace(['-', '.'], "_");
        vec![(format!("{name}.py"), self.dag(job))]
    }
}

fn check(args: &JobForm) -> anyhow::Result<Job> {
    let job = args.job.job()?;
    if let Some(step) = job.step_of_days().filter(|_| args.hourly) {
        let text = format!(
            "the step `{}` works on whole days; add --steps ingest, or leave --hourly out",
            step.name()
        );
        return Err(exit::UsageText(text).into());
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !job.name.bytes().all(is_name) || job.name.is_empty() {
        let text = format!(
            "the job's name `{}` goes into names of files and workflows; write letters, digits, - _ .",
            job.name
        );
        return Err(exit::UsageText(text).into());
    }
    Ok(job)
}

/// To a folder, or to stdout.
fn show(out: Option<&Path>, forms: &Forms) -> anyhow::Result<u8> {
    match out {
        Some(folder) => write(folder, forms),
        None => {
            let mut out = std::io::stdout().lock();
            for (name, text) in forms {
                if forms.len() > 1 {
                    writeln!(out, "==> {name} <==")?;
                }
                write!(out, "{text}")?;
            }
            Ok(exit::DONE)
        }
    }
}

/// Writes new files; says which.
fn write(folder: &Path, forms: &[(String, String)]) -> anyhow::Result<u8> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut out = std::io::stdout().lock();
    for (name, text) in forms {
        let path = folder.join(name);
        let created = std::fs::File::create_new(&path);
        let written = created.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| path.display().to_string())?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(exit::DONE)
}

impl JobForm {
    /// What every form says.
    fn common(&self, job: &Job) -> Values<'static> {
        let (every, unit, format) = match self.hourly {
            true => ("hour", "HOUR", "yyyy-MM-dd'T'HH"),
            false => ("day", "DAY", "yyyy-MM-dd"),
        };
        vec![
            ("@NAME@", job.name.clone()),
            ("@EVERY@", every.to_owned()),
            ("@UNIT@", unit.to_owned()),
            ("@FORMAT@", format.to_owned()),
            ("@SKIP@", SKIP.to_owned()),
        ]
    }

    /// Arguments of `klieg run` but for the date and how the scheduler is answered.
    fn arguments(&self, job_file: &str, site: Option<&str>) -> Vec<String> {
        let mut arguments = vec!["run".to_owned(), job_file.to_owned()];
        if let Some(site) = site {
            arguments.extend(["--config".to_owned(), site.to_owned()]);
        }
        arguments.extend(self.job.flags());
        arguments.extend(["--timeout".to_owned(), self.timeout.clone()]);
        arguments
    }

    /// A command line for a shell, with the date as the scheduler writes it.
    fn command(&self, date: &str, answers: &[&str]) -> String {
        let (job, site) = self.job.files();
        let site = site.map(|path| path.display().to_string());
        // Schedulers look for commands in few places.
        let this = std::env::current_exe().map(|path| path.display().to_string());
        let klieg = self.klieg.clone().or(this.ok());
        let mut words = vec![quoted(klieg.as_deref().unwrap_or("klieg"))];
        let arguments = self.arguments(&job.display().to_string(), site.as_deref());
        words.extend(arguments.iter().map(|argument| quoted(argument)));
        words.extend(["--date".to_owned(), date.to_owned()]);
        words.extend(answers.iter().map(|answer| (*answer).to_owned()));
        words.join(" ")
    }

    fn workflow(&self, job: &Job) -> String {
        let (job_file, site) = self.job.files();
        let base = |path: &Path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let (job_name, site_name) = (base(job_file), site.map(base));
        let mut arguments = self.arguments(&job_name, site_name.as_deref());
        arguments.extend(["--date", "${day}", "--oozie"].map(str::to_owned));
        let arguments = arguments.iter();
        let arguments: String = arguments
            .map(|argument| format!("      <argument>{}</argument>\n", xml(argument)))
            .collect();
        let files: Vec<_> = std::iter::once(job_name).chain(site_name).collect();
        let of_file = |name: &String| {
            let name = xml(name);
            format!("      <file>${{appPath}}/{name}#{name}</file>\n")
        };
        let note: String = files
            .iter()
            .map(|name| format!(", {}", comment(name)))
            .collect();
        let mut values = self.common(job);
        values.push(("@ARGUMENTS@", arguments));
        values.push(("@FILES@", files.iter().map(of_file).collect()));
        values.push(("@FILES_NOTE@", note));
        fill(include_str!("emit/workflow.xml"), &values)
    }

    fn coordinator(&self, job: &Job) -> String {
        let has_results = job.steps.iter().any(|step| !step.takes_hours());
        let warehouse = &job.config.warehouse;
        let layout = Layout::new(Path::new(&warehouse.to_string()), job.pipeline.name());
        let scores = layout.pipeline_dir().join("scored_results");
        let datasets = match has_results {
            true => fill(
                include_str!("emit/datasets.xml"),
                &vec![("@SCORES@", xml(&scores.display().to_string()))],
            ),
            false => String::new(),
        };
        let mut values = self.common(job);
        values.push(("@DATASETS@", datasets));
        fill(include_str!("emit/coordinator.xml"), &values)
    }

    fn properties(&self, job: &Job) -> String {
        let warehouse = &job.config.warehouse;
        let namenode = match warehouse.is_local() || warehouse.authority.is_empty() {
            true => "hdfs://namenode:8020".to_owned(),
            false => format!("{}://{}", warehouse.scheme, warehouse.authority),
        };
        let (hour, minute) = self.at;
        let hour = if self.hourly { 0 } else { hour };
        let mut values = self.common(job);
        values.push(("@NAMENODE@", namenode));
        values.push(("@RESOURCEMANAGER@", "resourcemanager:8032".to_owned()));
        values.push(("@START@", format!("2026-01-01T{hour:02}:{minute:02}Z")));
        fill(include_str!("emit/job.properties"), &values)
    }

    fn dag(&self, job: &Job) -> String {
        let date = match self.hourly {
            true => {
                "{{ (dag_run.run_after or logical_date).subtract(hours=1).strftime('%Y-%m-%dT%H') }}"
            }
            false => "{{ macros.ds_add(ds, -1) }}",
        };
        let answers = ["--output", "json", "--skip-exit-code", SKIP];
        let mut values = self.common(job);
        values.push(("@NAME_PY@", python(&job.name)));
        values.push(("@CRON_PY@", python(&self.cron_time())));
        values.push(("@COMMAND_PY@", python(&self.command(date, &answers))));
        fill(include_str!("emit/dag.py"), &values)
    }

    fn azkaban(&self, job: &Job) -> String {
        let answers = [
            "--output",
            "json",
            "--output-properties",
            "${JOB_OUTPUT_PROP_FILE}",
        ];
        let mut values = self.common(job);
        values.push(("@COMMAND@", self.command("${day}", &answers)));
        values.push(("@DAY@", self.relative_date().to_owned()));
        let example = if self.hourly { "T07" } else { "" };
        values.push(("@HOUR_EXAMPLE@", example.to_owned()));
        fill(include_str!("emit/azkaban.job"), &values)
    }

    fn crontab(&self, job: &Job) -> String {
        // cron ends a command at a per cent sign.
        let command = self
            .command(self.relative_date(), &["--quiet"])
            .replace('%', "\\%");
        let (hour, minute) = self.at;
        let hour = match self.hourly {
            true => "*".to_owned(),
            false => hour.to_string(),
        };
        let mut values = self.common(job);
        values.push(("@COMMAND@", command));
        values.push(("@MINUTE@", minute.to_string()));
        values.push(("@HOUR@", hour));
        fill(include_str!("emit/crontab"), &values)
    }

    fn cron_time(&self) -> String {
        let (hour, minute) = self.at;
        match self.hourly {
            true => format!("{minute} * * * *"),
            false => format!("{minute} {hour} * * *"),
        }
    }

    fn relative_date(&self) -> &'static str {
        match self.hourly {
            true => "last-hour",
            false => "yesterday",
        }
    }
}

/// Puts values in the place of their names; what is put in is not looked at again.
pub(super) fn fill(form: &str, values: &Values<'_>) -> String {
    let mut text = String::new();
    let mut rest = form;
    while let Some(start) = rest.find('@') {
        let (head, tail) = rest.split_at(start);
        text += head;
        let found = values.iter().find(|(name, _)| tail.starts_with(name));
        match found {
            Some((name, value)) => {
                text += value;
                rest = tail.get(name.len()..).unwrap_or_default();
            }
            None => {
                text.push('@');
                rest = tail.get(1..).unwrap_or_default();
            }
        }
    }
    text + rest
}

/// A word of a shell.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,+".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn xml(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// Text of a comment in XML, which two dashes would end.
fn comment(text: &str) -> String {
    text.replace("--", "- -")
}

/// A string of Python: JSON's are of the same form.
fn python(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
