//! Options that commands on a job share.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;

use crate::cli::exit;
use crate::config::Layers;
use crate::job::Job;
use crate::job::Reprocess;
use crate::table::hive::Day;

/// The site.
#[derive(Args, Debug)]
pub(super) struct SiteArgs {
    /// Site file: keys of conf/default.yaml, such as the warehouse
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key of the configuration: -D warehouse=/data/spot -D suspicious.topics=30
    #[arg(short = 'D', value_name = "KEY=VALUE", value_parser = parse_pair)]
    defines: Vec<(String, String)>,
    /// File of Hadoop's configuration, over those of its folder; -conf too
    #[arg(long, value_name = "FILE")]
    conf: Vec<PathBuf>,
    /// Default file system of Hadoop, the same as -D fs.defaultFS=URI; -fs too
    #[arg(long, value_name = "URI")]
    fs: Option<String>,
}

/// A job and what it runs with.
#[derive(Args, Debug)]
pub(super) struct JobArgs {
    /// Job file, such as jobs/flow.yaml
    job: PathBuf,
    #[command(flatten)]
    site: SiteArgs,
    /// Run only these steps, in this order
    #[arg(long, value_delimiter = ',', value_name = "STEP,...")]
    steps: Option<Vec<String>>,
    /// Threads; the same as -D threads=N
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory of plans, such as 4GiB; the same as -D memory=SIZE
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
}

/// Which days.
#[derive(Args, Debug)]
#[group(id = "days", required = true, multiple = true, args = ["date", "from"])]
pub(super) struct DayArgs {
    /// One day in UTC: 2016-07-08 or 20160708
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"])]
    date: Option<String>,
    /// First day of a range
    #[arg(long, value_name = "DAY", requires = "to")]
    from: Option<String>,
    /// Last day of a range, inclusive
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<String>,
}

/// Form of what a command prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Table,
    /// Everything
    Json,
}

/// Which of them a run does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum ReprocessArg {
    /// Days that lack the table or a result
    Missing,
    /// Days whose last run failed
    Failed,
    /// Days that are not up to date: missing, or with other raw files, settings or version
    Changed,
    /// Every day, also what is up to date and what has lost raw files
    All,
}

impl From<ReprocessArg> for Reprocess {
    fn from(arg: ReprocessArg) -> Self {
        match arg {
            ReprocessArg::Missing => Self::Missing,
            ReprocessArg::Failed => Self::Failed,
            ReprocessArg::Changed => Self::Changed,
            ReprocessArg::All => Self::All,
        }
    }
}

/// The most days of one range.
const DAYS_MAX: usize = 3660;

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((pair.0.trim().to_owned(), pair.1.trim().to_owned()))
}

impl SiteArgs {
    /// Defaults, environment and site file.
    fn base(&self) -> anyhow::Result<Layers> {
        let variables = std::env::vars_os();
        let texts = variables.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut layers = Layers::try_new(texts)?;
        if let Some(path) = &self.config {
            layers.add_site(&path.display().to_string(), &read(path)?)?;
        }
        for path in &self.conf {
            layers.add_hadoop_file(path.clone());
        }
        if let Some(uri) = &self.fs {
            layers.define("fs.defaultFS", uri)?;
        }
        Ok(layers)
    }

    /// With -D over it, for commands without a job.
    pub(super) fn layers(&self) -> anyhow::Result<Layers> {
        let mut layers = self.base()?;
        for (key, value) in &self.defines {
            layers.define(key, value)?;
        }
        Ok(layers)
    }
}

impl JobArgs {
    /// Reads and checks the job.
    pub(super) fn job(&self) -> anyhow::Result<Job> {
        let layers = self.site.base()?;
        let mut flags = self.site.defines.clone();
        flags.extend(
            self.threads
                .map(|threads| ("threads".to_owned(), threads.to_string())),
        );
        flags.extend(
            self.memory
                .clone()
                .map(|memory| ("memory".to_owned(), memory)),
        );
        let path = self.job.display().to_string();
        let text = read(&self.job)?;
        Ok(Job::try_new(
            layers,
            (&path, &text),
            &flags,
            self.steps.as_deref(),
        )?)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let name = path.display().to_string();
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => anyhow::Error::new(error).context(name),
        _ => exit::UsageText(format!("{name}: {error}")).into(),
    })
}

impl DayArgs {
    /// Returns the days in order.
    pub(super) fn days(&self) -> anyhow::Result<Vec<Day>> {
        if let Some(date) = &self.date {
            return Ok(vec![date.parse()?]);
        }
        let (from, to): (Day, Day) = match (&self.from, &self.to) {
            (Some(from), Some(to)) => (from.parse()?, to.parse()?),
            _ => return Err(exit::UsageText("give --date, or --from and --to".to_owned()).into()),
        };
        if from > to {
            let text = format!("--from {from} lies after --to {to}; swap them");
            return Err(exit::UsageText(text).into());
        }
        let days: Vec<Day> = std::iter::successors(Some(from), |day| Some(day.next()))
            .take_while(|day| *day <= to)
            .take(DAYS_MAX + 1)
            .collect();
        if days.len() > DAYS_MAX {
            let text = format!("--from {from} --to {to} are more than {DAYS_MAX} days");
            return Err(exit::UsageText(text).into());
        }
        Ok(days)
    }
}
