//! Results of the suspicious step: Spot's text file, the tables `flow_scores` and `flow_groups`.

use std::cmp::Ordering;
use std::fmt::Write as _;

/// Columns 1 to 17 of Spot's `flow_results.csv`.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowResult {
    /// `treceived`.
    pub treceived: Option<String>,
    /// `tryear`, `trmonth`, `trday`, `trhour`, `trminute`, `trsec`.
    pub parts: [Option<i32>; 6],
    /// `tdur`, seconds.
    pub tdur: Option<f32>,
    /// `sip`.
    pub sip: Option<String>,
    /// `dip`.
    pub dip: Option<String>,
    /// `sport`, `dport`.
    pub ports: [Option<i32>; 2],
    /// `proto`.
    pub proto: Option<String>,
    /// `ipkt`, `ibyt`, `opkt`, `obyt`.
    pub counters: [Option<i64>; 4],
}

impl FlowResult {
    /// The key that breaks ties of scores: time, addresses as text, ports, protocol, counters, duration.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |row: &Self| (row.ports, row.counters, row.tdur.map(f32::to_bits));
        let texts = self.treceived.cmp(&other.treceived);
        let ends = || (&self.sip, &self.dip).cmp(&(&other.sip, &other.dip));
        let proto = || self.proto.cmp(&other.proto);
        texts.then_with(ends).then_with(proto).then_with(|| key(self).cmp(&key(other)))
    }
}

/// Writes a number as `java.lang.Double.toString` does: plain from 10^-3 to below 10^7, else with `E`.
#[must_use]
pub fn java_double(value: f64) -> String {
    java_number(value.is_nan(), value.is_infinite(), value < 0.0, &format!("{:e}", value.abs()))
}

/// Writes a number as `java.lang.Float.toString` does.
#[must_use]
pub fn java_float(value: f32) -> String {
    java_number(value.is_nan(), value.is_infinite(), value < 0.0, &format!("{:e}", value.abs()))
}

/// `scientific` has the shortest digits that read back, as `1.25e-3`.
fn java_number(nan: bool, infinite: bool, negative: bool, scientific: &str) -> String {
    let sign = if negative { "-" } else { "" };
    if nan {
        return "NaN".to_owned();
    }
    if infinite {
        return format!("{sign}Infinity");
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if digits.chars().all(|digit| digit == '0') {
        return format!("{sign}0.0");
    }
    // Java wants two digits of the smallest numbers, where one reads back.
    let digits = if digits == "5" && exponent == -324 { "49".to_owned() } else { digits };
    if !(-3..7).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let rest = if rest.is_empty() { "0" } else { rest };
        return format!("{sign}{first}.{rest}E{exponent}");
    }
    let Ok(whole) = usize::try_from(exponent + 1) else {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    };
    if whole == 0 {
        return format!("{sign}0.{digits}");
    }
    let padded = format!("{digits:0<whole$}");
    let (integer, fraction) = padded.split_at(whole);
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    format!("{sign}{integer}.{fraction}")
}

/// Returns Spot's line, without its end: tab separated, `null` where there is no value; tabs, line ends and backslashes inside
/// a value are escaped, which Spot does not do.
#[must_use]
pub fn result_line(row: &FlowResult, score: f64) -> String {
    let mut line = String::with_capacity(160);
    text(&mut line, row.treceived.as_deref());
    row.parts.iter().for_each(|part| number(&mut line, *part));
    line.push_str(&row.tdur.map_or_else(|| "null".to_owned(), java_float));
    line.push('\t');
    text(&mut line, row.sip.as_deref());
    text(&mut line, row.dip.as_deref());
    row.ports.iter().for_each(|port| number(&mut line, *port));
    text(&mut line, row.proto.as_deref());
    row.counters.iter().for_each(|counter| number(&mut line, *counter));
    line.push_str(&java_double(score));
    line
}

fn number(line: &mut String, value: Option<impl std::fmt::Display>) {
    match value {
        // Writing to a String cannot fail.
        Some(value) => _ = write!(line, "{value}\t"),
        None => line.push_str("null\t"),
    }
}

fn text(line: &mut String, value: Option<&str>) {
    for character in value.unwrap_or("null").chars() {
        match character {
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\\' => line.push_str("\\\\"),
            other => line.push(other),
        }
    }
    line.push('\t');
}
