//! The `flow` table: Spot's 28 columns, then ours.
//!
//! Spot's `treceived` and `tr*` hold the time that decides the partition: the event time on the clock of the site (UTC unless told
//! otherwise), so that `trhour` and `h` agree.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::ArrowPrimitiveType;
use arrow::array::Float32Array;
use arrow::array::PrimitiveArray;
use arrow::array::RecordBatch;
use arrow::array::StringBuilder;
use arrow::buffer::NullBuffer;
use arrow::datatypes::ArrowNativeType;
use arrow::datatypes::Int32Type;
use arrow::datatypes::Int64Type;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use chrono::DateTime;
use chrono::Datelike as _;
use chrono::Timelike as _;

use crate::table::parquet;
use crate::table::parquet::HiveType;
use crate::wire::flow::FlowRecord;
use crate::wire::protocol;

/// Names and types in table order. From `sampling` on they are ours: the rate that the collector multiplied by, its number of
/// the exporter, IANA flowEndReason (each null where not known), and the start of the flow, milliseconds since 1970 UTC.
pub const COLUMNS: [(&str, HiveType); 32] = [
    ("treceived", HiveType::String),
    ("unix_tstamp", HiveType::Bigint),
    ("tryear", HiveType::Int),
    ("trmonth", HiveType::Int),
    ("trday", HiveType::Int),
    ("trhour", HiveType::Int),
    ("trminute", HiveType::Int),
    ("trsec", HiveType::Int),
    ("tdur", HiveType::Float),
    ("sip", HiveType::String),
    ("dip", HiveType::String),
    ("sport", HiveType::Int),
    ("dport", HiveType::Int),
    ("proto", HiveType::String),
    ("flag", HiveType::String),
    ("fwd", HiveType::Int),
    ("stos", HiveType::Int),
    ("ipkt", HiveType::Bigint),
    ("ibyt", HiveType::Bigint),
    ("opkt", HiveType::Bigint),
    ("obyt", HiveType::Bigint),
    ("input", HiveType::Int),
    ("output", HiveType::Int),
    ("sas", HiveType::Int),
    ("das", HiveType::Int),
    ("dtos", HiveType::Int),
    ("dir", HiveType::Int),
    ("rip", HiveType::String),
    ("sampling", HiveType::Int),
    ("exporter", HiveType::Int),
    ("endreason", HiveType::Int),
    ("start_ms", HiveType::Bigint),
];

/// Returns the schema.
#[must_use]
pub fn schema() -> SchemaRef {
    parquet::schema(&COLUMNS)
}

/// A column under construction.
enum Column {
    Int(Numbers<i32>),
    Bigint(Numbers<i64>),
    Float(Vec<f32>),
    Text(StringBuilder),
}

/// Numbers, few of them null.
struct Numbers<T> {
    values: Vec<T>,
    /// Rows without a value, ascending.
    nulls: Vec<usize>,
}

impl<T: ArrowNativeType> Numbers<T> {
    fn with_capacity(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            nulls: Vec::new(),
        }
    }

    fn push(&mut self, value: Option<T>) {
        if value.is_none() {
            self.nulls.push(self.values.len());
        }
        self.values.push(value.unwrap_or_default());
    }

    fn finish<A: ArrowPrimitiveType<Native = T>>(&mut self) -> PrimitiveArray<A> {
        let values = std::mem::take(&mut self.values);
        let nulls = std::mem::take(&mut self.nulls);
        let mut valid = Vec::new();
        if !nulls.is_empty() {
            valid.resize(values.len(), true);
            nulls.into_iter().for_each(|row| valid[row] = false);
        }
        let mask = (!valid.is_empty()).then(|| NullBuffer::from(valid));
        PrimitiveArray::new(values.into(), mask)
    }
}

/// Makes batches of records.
pub struct FlowBuilder {
    columns: Vec<Column>,
    rows: usize,
    clock: Clock,
    /// The last exporter's address and its text.
    rip: (Option<IpAddr>, String),
}

/// The text and parts of a second; many rows in a row share theirs.
#[derive(Default)]
struct Clock {
    second: Option<u64>,
    text: String,
    parts: [i32; 6],
}

impl Clock {
    fn set(&mut self, second: u64) {
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let time = i64::try_from(second)
            .ok()
            .and_then(|second| DateTime::from_timestamp(second, 0));
        let time = time.unwrap_or_default().naive_utc();
        let small = |value: u32| i32::try_from(value).unwrap_or(0);
        self.parts = [
            time.year(),
            small(time.month()),
            small(time.day()),
            small(time.hour()),
            small(time.minute()),
            small(time.second()),
        ];
        self.text.clear();
        let [y, mo, d, h, mi, s] = self.parts;
        // Writing to a String cannot fail.
        _ = write!(self.text, "{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}");
    }
}

impl Default for FlowBuilder {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl FlowBuilder {
    /// Makes room for `rows`.
    #[must_use]
    pub fn with_capacity(rows: usize) -> Self {
        let column = |(_, kind): &(&str, HiveType)| match kind {
            HiveType::Int => Column::Int(Numbers::with_capacity(rows)),
            HiveType::Bigint => Column::Bigint(Numbers::with_capacity(rows)),
            HiveType::Float | HiveType::Double => Column::Float(Vec::with_capacity(rows)),
            HiveType::String => Column::Text(StringBuilder::with_capacity(rows, rows * 16)),
        };
        Self {
            columns: COLUMNS.iter().map(column).collect(),
            rows: 0,
            clock: Clock::default(),
            rip: (None, String::new()),
        }
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a record whose event time is `event_ms`, and `local_ms` on the clock of the table; `sampling` is the rate that its counters were multiplied by, if known.
    pub fn push(
        &mut self,
        record: &FlowRecord,
        (event_ms, local_ms): (u64, u64),
        sampling: Option<u32>,
    ) {
        self.rows += 1;
        self.clock.set(local_ms / 1000);
        let [y, mo, d, h, mi, s] = self.clock.parts.map(i64::from);
        if self.rip.0 != Some(record.router_ip) {
            self.rip.0 = Some(record.router_ip);
            self.rip.1.clear();
            push_ip(&mut self.rip.1, record.router_ip);
        }
        let mut row = Row {
            columns: self.columns.iter_mut(),
        };
        row.text(&self.clock.text);
        row.number(event_ms / 1000);
        for part in [y, mo, d, h, mi, s] {
            row.small(part);
        }
        row.float(duration_s(record));
        row.ip(record.src_ip);
        row.ip(record.dst_ip);
        row.small(i64::from(record.src_port));
        row.small(i64::from(record.dst_port));
        row.protocol(record.protocol);
        row.flags(record.tcp_flags);
        row.small(i64::from(record.forwarding_status));
        row.small(i64::from(record.src_tos));
        let counters = [
            record.packets_in,
            record.bytes_in,
            record.packets_out,
            record.bytes_out,
        ];
        for counter in counters {
            row.number(counter);
        }
        for number in [record.input, record.output, record.src_as, record.dst_as] {
            row.small(i64::from(number));
        }
        row.small(i64::from(record.dst_tos));
        row.small(i64::from(record.direction));
        row.text(&self.rip.1);
        row.known(sampling);
        row.known(Some(u32::from(record.exporter_id)).filter(|&id| id > 0));
        row.known(Some(u32::from(record.end_reason)).filter(|&reason| reason > 0));
        row.number(record.first_ms);
    }

    /// Returns the rows as a batch and starts anew.
    ///
    /// # Errors
    /// None that columns of one length can make.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(|column| -> ArrayRef {
            match column {
                Column::Int(numbers) => Arc::new(numbers.finish::<Int32Type>()),
                Column::Bigint(numbers) => Arc::new(numbers.finish::<Int64Type>()),
                Column::Float(values) => Arc::new(Float32Array::from(std::mem::take(values))),
                Column::Text(builder) => Arc::new(builder.finish()),
            }
        });
        RecordBatch::try_new(schema(), arrays.collect())
    }
}

/// Seconds from first to last packet, 0 where the end lies before the start.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the column is FLOAT, as Spot has it"
)]
fn duration_s(record: &FlowRecord) -> f32 {
    (record.last_ms.saturating_sub(record.first_ms) as f64 / 1000.0) as f32
}

/// The cells of one row, left to right.
struct Row<'a> {
    columns: std::slice::IterMut<'a, Column>,
}

impl Row<'_> {
    fn small(&mut self, value: i64) {
        if let Some(Column::Int(numbers)) = self.columns.next() {
            numbers.push(i32::try_from(value).ok());
        }
    }

    fn known(&mut self, value: Option<u32>) {
        if let Some(Column::Int(numbers)) = self.columns.next() {
            numbers.push(value.and_then(|value| i32::try_from(value).ok()));
        }
    }

    fn number(&mut self, value: u64) {
        if let Some(Column::Bigint(numbers)) = self.columns.next() {
            numbers.push(i64::try_from(value).ok());
        }
    }

    fn float(&mut self, value: f32) {
        if let Some(Column::Float(values)) = self.columns.next() {
            values.push(value);
        }
    }

    fn text(&mut self, value: &str) {
        if let Some(Column::Text(builder)) = self.columns.next() {
            builder.append_value(value);
        }
    }

    fn ip(&mut self, ip: IpAddr) {
        if let Some(Column::Text(builder)) = self.columns.next() {
            push_ip(builder, ip);
            builder.append_value("");
        }
    }

    fn protocol(&mut self, number: u8) {
        match protocol::name(number) {
            Some(name) => self.text(name),
            None => self.text(&number.to_string()),
        }
    }

    /// Letters or dots; two blanks and hex where the flags hold more than six.
    fn flags(&mut self, flags: u8) {
        if flags > 63 {
            return self.text(&format!("  0x{flags:02x}"));
        }
        let letters = [
            (32, b'U'),
            (16, b'A'),
            (8, b'P'),
            (4, b'R'),
            (2, b'S'),
            (1, b'F'),
        ];
        let text = letters.map(|(bit, letter)| if flags & bit == 0 { b'.' } else { letter });
        self.text(std::str::from_utf8(&text).unwrap_or_default());
    }
}

/// Writes an address as `inet_ntop` does.
fn push_ip(out: &mut impl std::fmt::Write, ip: IpAddr) {
    if let IpAddr::V6(v6) = ip
        && matches!(v6.segments(), [0, 0, 0, 0, 0, 0, high, _] if high != 0)
    {
        // An IPv4-compatible address: only its last part is written with dots.
        if let Some(v4) = v6.to_ipv4() {
            _ = out.write_str("::");
            return push_ip(out, IpAddr::V4(v4));
        }
    }
    let IpAddr::V4(v4) = ip else {
        // Writing to memory cannot fail.
        _ = write!(out, "{ip}");
        return;
    };
    let mut text = [0; 15];
    let mut length = 0;
    let mut push = |byte| {
        text[length] = byte;
        length += 1;
    };
    for (index, octet) in v4.octets().into_iter().enumerate() {
        if index > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    _ = out.write_str(std::str::from_utf8(&text[..length]).unwrap_or_default());
}

/// Columns that words and filters need.
pub const WORD_COLUMNS: [&str; 11] = [
    "treceived",
    "trhour",
    "trminute",
    "trsec",
    "sip",
    "dip",
    "sport",
    "dport",
    "proto",
    "ipkt",
    "ibyt",
];
