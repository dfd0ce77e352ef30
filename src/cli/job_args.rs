//! Options that commands on a job share.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::ValueEnum;

use crate::cli::exit;
use crate::cli::run;
use crate::config;
use crate::config::Layers;
use crate::job::Job;
use crate::job::Reprocess;
use crate::table::hive::DAY_MS;
use crate::table::hive::Day;
use crate::table::hive::HOUR_MS;
use crate::table::period::Period;
use crate::table::period::Zone;

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
    /// Clock of days and hours, such as Europe/Berlin; the same as -D timezone=ZONE
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Memory of plans, such as 4GiB; the same as -D memory=SIZE
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
}

/// Which days or hours.
#[derive(Args, Debug)]
#[group(id = "days", required = true, multiple = true, args = ["date", "from"])]
pub(super) struct DayArgs {
    /// One day: 2016-07-08, 20160708, 2016-07-08T00:00Z, yesterday, today; or one hour: 2016-07-08T07, last-hour
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"])]
    date: Option<String>,
    /// First day or hour of a range
    #[arg(long, value_name = "DAY", requires = "to")]
    from: Option<String>,
    /// Last day or hour of a range, inclusive
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<String>,
    /// Hours of these days, each published alone: 7, 0-7 or 0,6-8
    #[arg(long, value_name = "HOURS")]
    hours: Option<String>,
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

/// Where Apache Spot has its settings, unless SPOTCONF says otherwise; read for those who come from it.
const SPOT_CONF: &str = "/etc/spot.conf";
/// The most days or hours of one range.
const PERIODS_MAX: usize = 24 * 3660;

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((pair.0.trim().to_owned(), pair.1.trim().to_owned()))
}

/// Parses 90s, 10m, 6h.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    config::parse_time(text).ok_or_else(|| format!("`{text}` is no time such as 90s, 10m, 6h"))
}

impl SiteArgs {
    /// Defaults, environment and site file.
    fn base(&self) -> anyhow::Result<Layers> {
        let variables = std::env::vars_os();
        let texts = variables.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut layers = Layers::try_new(texts)?;
        let spot = std::env::var_os("SPOTCONF").unwrap_or_else(|| SPOT_CONF.into());
        let spot = PathBuf::from(spot);
        if let Ok(text) = std::fs::read_to_string(&spot) {
            layers.add_spot(&spot.display().to_string(), &text);
        }
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
    /// Returns the paths of the job and of the site file.
    pub(super) fn files(&self) -> (&Path, Option<&Path>) {
        (&self.job, self.site.config.as_deref())
    }

    /// Returns the other options as they were given.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut add = |name: &str, value: String| flags.extend([name.to_owned(), value]);
        for (key, value) in &self.site.defines {
            add("-D", format!("{key}={value}"));
        }
        for path in &self.site.conf {
            add("--conf", path.display().to_string());
        }
        if let Some(uri) = &self.site.fs {
            add("--fs", uri.clone());
        }
        if let Some(steps) = &self.steps {
            add("--steps", steps.join(","));
        }
        if let Some(threads) = self.threads {
            add("--threads", threads.to_string());
        }
        if let Some(zone) = &self.timezone {
            add("--timezone", zone.clone());
        }
        if let Some(memory) = &self.memory {
            add("--memory", memory.clone());
        }
        flags
    }

    /// Reads and checks the job.
    pub(super) fn job(&self) -> anyhow::Result<Job> {
        self.job_with(&[])
    }

    /// The same with options of a command, which are keys, over all else.
    pub(super) fn job_with(&self, options: &[(String, String)]) -> anyhow::Result<Job> {
        let layers = self.site.base()?;
        let mut flags = self.site.defines.clone();
        flags.extend_from_slice(options);
        flags.extend(
            self.threads
                .map(|threads| ("threads".to_owned(), threads.to_string())),
        );
        flags.extend(
            self.timezone
                .clone()
                .map(|zone| ("timezone".to_owned(), zone)),
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
    /// Returns days or hours in order.
    pub(super) fn periods(&self, job: &Job) -> anyhow::Result<Vec<Period>> {
        let zone = Zone::from(job.config.zone);
        let (from, to) = match (&self.date, &self.from, &self.to) {
            (Some(date), ..) => (parse(date, zone)?, parse(date, zone)?),
            (_, Some(from), Some(to)) => (parse(from, zone)?, parse(to, zone)?),
            _ => return Err(exit::UsageText("give --date, or --from and --to".to_owned()).into()),
        };
        let periods = match &self.hours {
            None => range(from, to)?,
            Some(hours) if (from.hour, to.hour) == (None, None) => {
                let hours = parse_hours(hours)?;
                let days = range(from, to)?.into_iter();
                let of_day = |period: Period| {
                    let hours = hours.iter();
                    let hour = move |hour: &u8| Period {
                        hour: Some(*hour),
                        ..period
                    };
                    hours.map(hour)
                };
                days.flat_map(of_day).collect()
            }
            Some(_) => {
                return usage("--hours goes with days, and --date, --from or --to is an hour");
            }
        };
        if periods.iter().any(|period| period.hour.is_some())
            && let Some(step) = job.step_of_days()
        {
            let name = step.name();
            return usage(&format!(
                "the step `{name}` works on whole days; add --steps ingest, and run `{name}` when the day is complete"
            ));
        }
        Ok(periods)
    }
}

fn usage<T>(text: &str) -> anyhow::Result<T> {
    Err(exit::UsageText(text.to_owned()).into())
}

/// Takes what [`Period`] does, and periods by the clock.
fn parse(text: &str, zone: Zone) -> anyhow::Result<Period> {
    let back_ms = match text {
        "today" => 0,
        "yesterday" => DAY_MS,
        "last-hour" => HOUR_MS,
        _ => return Ok(text.parse::<Period>()?),
    };
    let now = run::now().duration_since(std::time::UNIX_EPOCH)?;
    let now_ms = u64::try_from(now.as_millis())?;
    let local_ms = now_ms.saturating_add_signed(zone.offset_ms(now_ms));
    let then_ms = local_ms.saturating_sub(back_ms);
    let hour = u8::try_from(then_ms % DAY_MS / HOUR_MS)?;
    match Day::of_ms(then_ms) {
        Some(day) => Ok(Period {
            day,
            hour: (text == "last-hour").then_some(hour),
        }),
        None => usage(&format!(
            "the clock of this machine tells no day for `{text}`"
        )),
    }
}

/// Every day, or every hour, from one to another.
fn range(from: Period, to: Period) -> anyhow::Result<Vec<Period>> {
    if from.hour.is_some() != to.hour.is_some() {
        return usage(&format!(
            "{from} and {to} are a day and an hour; give two of a kind"
        ));
    }
    if from > to {
        return usage(&format!("--from {from} lies after --to {to}; swap them"));
    }
    let next = |period: &Period| {
        let hour = period.hour.map(|hour| (hour + 1) % 24);
        let is_same_day = hour.is_some_and(|hour| hour > 0);
        let day = if is_same_day {
            period.day
        } else {
            period.day.next()
        };
        Some(Period { day, hour })
    };
    let periods = std::iter::successors(Some(from), next)
        .take_while(|period| *period <= to)
        .take(PERIODS_MAX + 1);
    let periods: Vec<_> = periods.collect();
    if periods.len() > PERIODS_MAX {
        return usage(&format!(
            "--from {from} --to {to} are more than {PERIODS_MAX} periods"
        ));
    }
    Ok(periods)
}

/// Parses 7, 0-7, 0,6-8.
fn parse_hours(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut hours = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let hour = |text: &str| text.parse().ok().filter(|hour: &u8| *hour < 24);
        match (hour(first), hour(last)) {
            (Some(first), Some(last)) if first <= last => hours.extend(first..=last),
            _ => {
                return usage(&format!(
                    "--hours is `{text}`, must be such as 7, 0-7 or 0,6-8"
                ));
            }
        }
    }
    Ok(hours.into_iter().collect())
}
