//! Results of the suspicious step: Spot's text file, the tables `flow_scores` and `flow_groups`.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::Float32Array;
use arrow::array::Float64Array;
use arrow::array::Int32Array;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::error::ArrowError;

use crate::table::parquet;
use crate::table::parquet::HiveType;
use crate::table::parquet::HiveType::Bigint;
use crate::table::parquet::HiveType::Double;
use crate::table::parquet::HiveType::Float;
use crate::table::parquet::HiveType::Int;
use crate::table::parquet::HiveType::String as Text;

/// Columns of `flow_scores`: Spot's 20, then p in full precision. Context columns are null until they are looked up.
pub const SCORE_COLUMNS: [(&str, HiveType); 21] = [
    ("tstart", Text),
    ("srcip", Text),
    ("dstip", Text),
    ("sport", Int),
    ("dport", Int),
    ("proto", Text),
    ("ipkt", Int),
    ("ibyt", Int),
    ("opkt", Int),
    ("obyt", Int),
    ("ml_score", Float),
    ("rank", Int),
    ("srcip_internal", Int),
    ("dstip_internal", Int),
    ("src_geoloc", Text),
    ("dst_geoloc", Text),
    ("src_domain", Text),
    ("dst_domain", Text),
    ("src_rep", Text),
    ("dst_rep", Text),
    ("score", Double),
];

/// Columns of `flow_groups`.
pub const GROUP_COLUMNS: [(&str, HiveType); 33] = [
    ("rank", Int),
    ("half", Text),
    ("rank_a", Int),
    ("rank_b", Int),
    ("rank_p", Int),
    ("ip", Text),
    ("word", Text),
    ("flows", Bigint),
    ("first", Text),
    ("last", Text),
    ("p", Double),
    ("bits", Double),
    ("score_a", Double),
    ("q", Double),
    ("pmi", Double),
    ("score_b", Double),
    ("hosts", Int),
    ("hosts_total", Int),
    ("feature", Text),
    ("feature_bits", Double),
    ("usual_word", Text),
    ("usual_flows", Bigint),
    ("flows_of_ip", Bigint),
    ("reason", Text),
    ("sample_time", Text),
    ("sample_sip", Text),
    ("sample_dip", Text),
    ("sample_sport", Int),
    ("sample_dport", Int),
    ("sample_proto", Text),
    ("sample_ipkt", Bigint),
    ("sample_ibyt", Bigint),
    ("sample_tdur", Float),
];

/// A row of `flow_groups`. Ranks start at 1 and are null where the group is not among the first of that order.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRow {
    /// Rank in the list.
    pub rank: Option<i32>,
    /// `A` or `B`: the half that brought it into the list.
    pub half: Option<&'static str>,
    /// Ranks in half A, half B and by p.
    pub ranks: [Option<i32>; 3],
    /// The address.
    pub ip: String,
    /// The word as Spot writes it.
    pub word: String,
    /// Flows.
    pub flows: i64,
    /// First and last event, UTC.
    pub times: [Option<String>; 2],
    /// Mean p of the presence models, its bits, S'.
    pub loud: [Option<f64>; 3],
    /// Mean p of the token models (Spot's p), PMI, lower mid-rank.
    pub quiet: [Option<f64>; 3],
    /// Hosts that have the word, hosts of the day.
    pub hosts: [i32; 2],
    /// The improbable feature and the bits that it costs.
    pub feature: (&'static str, f64),
    /// The most frequent word of the address, its flows, all flows of the address.
    pub usual: (String, i64, i64),
    /// All that in one line.
    pub reason: String,
    /// The first flow.
    pub sample: Option<FlowResult>,
}

fn ints(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.collect::<Int32Array>())
}

fn longs(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn doubles(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

fn texts<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Makes the rows of `flow_scores`; ranks count from 1.
///
/// # Errors
/// None that columns of one length can make.
#[expect(
    clippy::cast_possible_truncation,
    reason = "ml_score is FLOAT, as Spot has it"
)]
pub fn scores_batch(flows: &[(f64, FlowResult)]) -> Result<RecordBatch, ArrowError> {
    let rows = || flows.iter().map(|(_, row)| row);
    let small = |index: usize| {
        ints(rows().map(move |row| row.counters[index].and_then(|n| i32::try_from(n).ok())))
    };
    let none = |_: &FlowResult| None;
    let ranks = 1..=i32::try_from(flows.len()).unwrap_or(i32::MAX);
    let mut columns = vec![
        texts(rows().map(|row| row.treceived.as_ref())),
        texts(rows().map(|row| row.sip.as_ref())),
        texts(rows().map(|row| row.dip.as_ref())),
        ints(rows().map(|row| row.ports[0])),
        ints(rows().map(|row| row.ports[1])),
        texts(rows().map(|row| row.proto.as_ref())),
        small(0),
        small(1),
        small(2),
        small(3),
        Arc::new(
            flows
                .iter()
                .map(|(score, _)| Some(*score as f32))
                .collect::<Float32Array>(),
        ),
        ints(ranks.map(Some)),
        ints(rows().map(none)),
        ints(rows().map(none)),
    ];
    columns.extend((0..6).map(|_| texts(rows().map(|_| None::<&str>))));
    columns.push(doubles(flows.iter().map(|(score, _)| Some(*score))));
    RecordBatch::try_new(parquet::schema(&SCORE_COLUMNS), columns)
}

/// Makes the rows of `flow_groups`.
///
/// # Errors
/// None that columns of one length can make.
pub fn groups_batch(rows: &[GroupRow]) -> Result<RecordBatch, ArrowError> {
    let sample = || rows.iter().map(|row| row.sample.as_ref());
    let columns = vec![
        ints(rows.iter().map(|row| row.rank)),
        texts(rows.iter().map(|row| row.half)),
        ints(rows.iter().map(|row| row.ranks[0])),
        ints(rows.iter().map(|row| row.ranks[1])),
        ints(rows.iter().map(|row| row.ranks[2])),
        texts(rows.iter().map(|row| Some(&row.ip))),
        texts(rows.iter().map(|row| Some(&row.word))),
        longs(rows.iter().map(|row| Some(row.flows))),
        texts(rows.iter().map(|row| row.times[0].as_ref())),
        texts(rows.iter().map(|row| row.times[1].as_ref())),
        doubles(rows.iter().map(|row| row.loud[0])),
        doubles(rows.iter().map(|row| row.loud[1])),
        doubles(rows.iter().map(|row| row.loud[2])),
        doubles(rows.iter().map(|row| row.quiet[0])),
        doubles(rows.iter().map(|row| row.quiet[1])),
        doubles(rows.iter().map(|row| row.quiet[2])),
        ints(rows.iter().map(|row| Some(row.hosts[0]))),
        ints(rows.iter().map(|row| Some(row.hosts[1]))),
        texts(rows.iter().map(|row| Some(row.feature.0))),
        doubles(rows.iter().map(|row| Some(row.feature.1))),
        texts(rows.iter().map(|row| Some(&row.usual.0))),
        longs(rows.iter().map(|row| Some(row.usual.1))),
        longs(rows.iter().map(|row| Some(row.usual.2))),
        texts(rows.iter().map(|row| Some(&row.reason))),
        texts(sample().map(|flow| flow?.treceived.as_ref())),
        texts(sample().map(|flow| flow?.sip.as_ref())),
        texts(sample().map(|flow| flow?.dip.as_ref())),
        ints(sample().map(|flow| flow?.ports[0])),
        ints(sample().map(|flow| flow?.ports[1])),
        texts(sample().map(|flow| flow?.proto.as_ref())),
        longs(sample().map(|flow| flow?.counters[0])),
        longs(sample().map(|flow| flow?.counters[1])),
        Arc::new(sample().map(|flow| flow?.tdur).collect::<Float32Array>()),
    ];
    RecordBatch::try_new(parquet::schema(&GROUP_COLUMNS), columns)
}

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
        texts
            .then_with(ends)
            .then_with(proto)
            .then_with(|| key(self).cmp(&key(other)))
    }
}

/// Writes a number as `java.lang.Double.toString` does: plain from 10^-3 to below 10^7, else with `E`.
#[must_use]
pub fn java_double(value: f64) -> String {
    java_number(
        value.is_nan(),
        value.is_infinite(),
        value.is_sign_negative(),
        &format!("{:e}", value.abs()),
    )
}

/// Writes a number as `java.lang.Float.toString` does.
#[must_use]
pub fn java_float(value: f32) -> String {
    java_number(
        value.is_nan(),
        value.is_infinite(),
        value.is_sign_negative(),
        &format!("{:e}", value.abs()),
    )
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
    let digits = if digits == "5" && exponent == -324 {
        "49".to_owned()
    } else {
        digits
    };
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
    row.counters
        .iter()
        .for_each(|counter| number(&mut line, *counter));
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
