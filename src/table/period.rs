//! What a run publishes as one: a day, or an hour of it, on the clock of the site.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use chrono::DateTime;
use chrono::Duration;
use chrono::MappedLocalTime;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::Offset as _;
use chrono::TimeZone as _;
use chrono::Utc;
use chrono_tz::Tz;

use crate::table::hive::Day;
use crate::table::hive::HOUR_MS;
use crate::table::hive::InvalidDay;
use crate::table::hive::hour_dir;

/// Clocks are changed at such steps at the finest, since 1970.
const STEP_MS: u64 = HOUR_MS / 4;
/// The longest time that a clock was put on at once: a whole day, in the Pacific.
const GAP_STEPS: i32 = 4 * 25;

/// The clock by which days and hours are told, of the IANA database that is built in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Zone(Tz);

impl From<Tz> for Zone {
    fn from(zone: Tz) -> Self {
        Self(zone)
    }
}

impl Zone {
    /// Universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// Returns what is added to a time in milliseconds since 1970 to get that of the local clock.
    #[must_use]
    pub fn offset_ms(self, time_ms: u64) -> i64 {
        let time = i64::try_from(time_ms).ok();
        let time: Option<DateTime<Utc>> = time.and_then(DateTime::from_timestamp_millis);
        time.map_or(0, |time| {
            let offset = self.0.offset_from_utc_datetime(&time.naive_utc()).fix();
            i64::from(offset.local_minus_utc()) * 1000
        })
    }

    /// Returns the time, in milliseconds since 1970, at which the local clock shows `local` first, or what comes after it where the clock
    /// skips it.
    #[must_use]
    pub fn first_ms(self, local: NaiveDateTime) -> u64 {
        for step in 0..GAP_STEPS {
            let shown = local + Duration::minutes(15) * step;
            match self.0.from_local_datetime(&shown) {
                MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => {
                    return u64::try_from(time.timestamp_millis()).unwrap_or(0);
                }
                MappedLocalTime::None => {}
            }
        }
        u64::try_from(local.and_utc().timestamp_millis()).unwrap_or(0)
    }

    /// Returns what is added to times from each of several times on, within a range.
    #[must_use]
    pub fn offsets(self, range: &Range<u64>) -> Vec<(u64, i64)> {
        let mut offsets = vec![(range.start, self.offset_ms(range.start))];
        let first_step = range.start / STEP_MS * STEP_MS + STEP_MS;
        let steps = (0..).map(|step| first_step + step * STEP_MS);
        for time in steps.take_while(|time| *time < range.end) {
            let offset = self.offset_ms(time);
            if offsets.last().is_none_or(|last| last.1 != offset) {
                offsets.push((time, offset));
            }
        }
        offsets
    }
}

/// A day, or an hour of it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Period {
    /// The day.
    pub day: Day,
    /// The hour, 0 to 23; `None` for the day as a whole.
    pub hour: Option<u8>,
}

/// A text that is no period.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPeriod {
    /// No day.
    #[error(transparent)]
    Day(#[from] InvalidDay),
    /// No hour.
    #[error("`{0}` names no hour; write 2016-07-08T07, or 2016-07-08 and --hours 7")]
    Hour(String),
}

impl From<Day> for Period {
    fn from(day: Day) -> Self {
        Self { day, hour: None }
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    /// Takes `2016-07-08`, `20160708`, `2016-07-08T07`, `2016070807`, and the midnight that Oozie writes for a day, `2016-07-08T00:00Z`.
    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (day, hour) = match text.split_once('T') {
            Some((day, "00:00Z" | "00:00")) => (day, None),
            Some((day, hour)) => (day, Some(hour)),
            None if text.len() == 10 && digits(text) => (&text[..8], Some(&text[8..])),
            None => (text, None),
        };
        let invalid = || InvalidPeriod::Hour(text.to_owned());
        let hour = hour.map(|hour| {
            let number = (hour.len() == 2 && digits(hour)).then(|| hour.parse().ok());
            let number = number.flatten().filter(|hour: &u8| *hour < 24);
            number.ok_or_else(invalid)
        });
        Ok(Self {
            day: day.parse()?,
            hour: hour.transpose()?,
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hour {
            Some(hour) => write!(f, "{}T{hour:02}", self.day),
            None => self.day.fmt(f),
        }
    }
}

impl Period {
    /// Returns its first millisecond since 1970 and that after its last, by a clock. An hour that the clock skips is empty; one that it
    /// shows twice is of two hours.
    #[must_use]
    pub fn range_ms(self, zone: impl Into<Zone>) -> Range<u64> {
        let zone = zone.into();
        let midnight = self.day.date().and_time(NaiveTime::MIN);
        let (first, hours) = match self.hour {
            Some(hour) => (midnight + Duration::hours(hour.into()), 1),
            None => (midnight, 24),
        };
        zone.first_ms(first)..zone.first_ms(first + Duration::hours(hours))
    }

    /// Returns `y=2016/m=7/d=8`, with `h=7` for an hour.
    #[must_use]
    pub fn hive_path(self) -> PathBuf {
        let day = self.day.hive_path();
        self.hour
            .map_or_else(|| day.clone(), |hour| day.join(hour_dir(hour)))
    }
}
