//! Rows of the `flow` table to pairs of IP and word, and the plan that counts them.
//!
//! ```text
//! scan ─► Words: two rows a valid flow (ip_hi, ip_lo, word) ─► partial counts ─► repartition by key ─► final counts
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use arrow::array::Array as _;
use arrow::array::AsArray as _;
use arrow::array::RecordBatch;
use arrow::array::StringViewArray;
use arrow::array::UInt64Array;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Int32Type;
use arrow::datatypes::Int64Type;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::UInt64Type;
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::physical_expr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::Partitioning;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::aggregates::AggregateMode;
use datafusion::physical_plan::aggregates::PhysicalGroupBy;
use datafusion::physical_plan::repartition::RepartitionExec;
use serde::Deserialize;
use serde::Serialize;

use crate::column::Column;
use crate::column::Room;
use crate::engine::Progress;
use crate::engine::Sink;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;
use crate::table::flow::WORD_COLUMNS;
use crate::word::Compat;
use crate::word::filter;
use crate::word::filter::FlowRow;
use crate::word::filter::Invalid;
use crate::word::flow;
use crate::word::flow::FlowFields;
use crate::word::flow::FlowWord;
use crate::word::flow::Protocol;

/// What the words depend on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WordsSpec {
    /// Compute as Spot does where Spot errs.
    pub compat_spot: bool,
}

impl WordsSpec {
    pub(super) fn compat(&self) -> Compat {
        if self.compat_spot {
            Compat::Spot
        } else {
            Compat::Mended
        }
    }
}

/// `ip_hi`, `ip_lo` (IPv4 as mapped IPv6, big-endian), `word` (bits).
#[must_use]
pub fn schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::UInt64, false);
    Arc::new(Schema::new(vec![
        field("ip_hi"),
        field("ip_lo"),
        field("word"),
    ]))
}

/// Returns an address as a number: IPv4 is mapped into IPv6, so the order is that of the bytes.
#[must_use]
pub fn ip_key(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => 0xffff_0000_0000 | u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// Returns the address of a key.
#[must_use]
pub fn key_ip(key: u128) -> IpAddr {
    let v6 = Ipv6Addr::from(key);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// Why a row has no words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excluded {
    /// Spot's filter.
    Invalid(Invalid),
    /// `proto` is neither a name nor a number.
    Protocol,
    /// A port over 65535.
    Port,
    /// `sip` or `dip` is no address.
    Address,
}

/// Set in codes of excluded rows, never in words.
const EXCLUDED_BIT: u64 = 1 << 63;
/// All reasons by code.
const EXCLUDED: [Excluded; 13] = [
    Excluded::Invalid(Invalid::Hour),
    Excluded::Invalid(Invalid::Minute),
    Excluded::Invalid(Invalid::Second),
    Excluded::Invalid(Invalid::Received),
    Excluded::Invalid(Invalid::SrcIp),
    Excluded::Invalid(Invalid::DstIp),
    Excluded::Invalid(Invalid::SrcPort),
    Excluded::Invalid(Invalid::DstPort),
    Excluded::Invalid(Invalid::Bytes),
    Excluded::Invalid(Invalid::Packets),
    Excluded::Protocol,
    Excluded::Port,
    Excluded::Address,
];

impl Excluded {
    /// Stands in the place of a word, so that one plan counts both.
    fn code(self) -> u64 {
        let index = EXCLUDED
            .iter()
            .position(|known| *known == self)
            .unwrap_or(0);
        EXCLUDED_BIT | index as u64
    }

    fn of_code(word: u64) -> Option<Self> {
        let index = usize::try_from(word ^ EXCLUDED_BIT).ok()?;
        EXCLUDED.get(index).copied()
    }
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Protocol => f.write_str("proto is no protocol"),
            Self::Port => f.write_str("a port is over 65535"),
            Self::Address => f.write_str("sip or dip is no address"),
        }
    }
}

/// A document's count of a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pair {
    /// The document: see [`ip_key`].
    pub ip: u128,
    /// Bits of the word.
    pub word: u64,
    /// Count, over 0.
    pub count: u64,
}

/// Counts of a day.
#[derive(Debug)]
pub struct Documents {
    /// By IP and word, ascending.
    pub pairs: Column<Pair>,
    /// Rows without words, by reason.
    pub excluded: BTreeMap<String, u64>,
    /// Rows with words.
    pub flows: u64,
}

/// Plans the counts: `scan` gives [`WORD_COLUMNS`].
///
/// # Errors
/// None that these columns can make.
pub fn plan_counts(
    spec: WordsSpec,
    scan: Arc<dyn ExecutionPlan>,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let words: Arc<dyn ExecutionPlan> = Arc::new(TaskExec::new(TaskSpec::Words(spec), scan));
    let input_schema = words.schema();
    let key = |name: &str| {
        Ok((
            physical_expr::expressions::col(name, &input_schema)?,
            name.to_owned(),
        ))
    };
    let keys: Result<Vec<_>, DataFusionError> =
        ["ip_hi", "ip_lo", "word"].into_iter().map(key).collect();
    let count = AggregateExprBuilder::new(count_udaf(), vec![lit(1_i64)])
        .schema(Arc::clone(&input_schema))
        .alias("count")
        .build()?;
    let counts = vec![Arc::new(count)];
    let group_by = PhysicalGroupBy::new_single(keys?);
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        group_by,
        counts.clone(),
        vec![None],
        words,
        Arc::clone(&input_schema),
    )?;
    let group_by = partial.group_expr().as_final();
    let hash = group_by.input_exprs();
    let shuffled =
        RepartitionExec::try_new(Arc::new(partial), Partitioning::Hash(hash, partitions))?;
    let last = AggregateExec::try_new(
        AggregateMode::FinalPartitioned,
        group_by,
        counts,
        vec![None],
        Arc::new(shuffled),
        input_schema,
    )?;
    Ok(Arc::new(last))
}

impl Sink for Documents {
    fn begin(&mut self) {
        *self = Self::new(self.pairs.room());
    }

    /// Takes what the plan of [`plan_counts`] gives.
    fn add(&mut self, batch: RecordBatch) -> Result<(), DataFusionError> {
        let wrong = || DataFusionError::Internal("counts have unexpected columns".to_owned());
        let column = |index| {
            batch
                .column(index)
                .as_primitive_opt::<UInt64Type>()
                .ok_or_else(wrong)
        };
        let (hi, lo, words) = (column(0)?, column(1)?, column(2)?);
        let counts = batch
            .column(3)
            .as_primitive_opt::<Int64Type>()
            .ok_or_else(wrong)?;
        for row in 0..batch.num_rows() {
            let count = u64::try_from(counts.value(row)).unwrap_or(0);
            let word = words.value(row);
            if word & EXCLUDED_BIT == 0 {
                let ip = u128::from(hi.value(row)) << 64 | u128::from(lo.value(row));
                let pushed = self.pairs.push(Pair { ip, word, count });
                pushed.map_err(|error| DataFusionError::External(Box::new(error)))?;
            } else if let Some(excluded) = Excluded::of_code(word) {
                *self.excluded.entry(excluded.to_string()).or_default() += count;
            }
        }
        Ok(())
    }
}

impl Documents {
    /// Makes those of no rows.
    #[must_use]
    pub fn new(room: &Arc<Room>) -> Self {
        Self {
            pairs: Column::new(room),
            excluded: BTreeMap::new(),
            flows: 0,
        }
    }

    /// Sorts the pairs and counts the flows, when all batches have come.
    pub fn finish(&mut self) {
        self.pairs.sort_unstable_by_key(|pair| (pair.ip, pair.word));
        self.flows = self.pairs.iter().map(|pair| pair.count).sum::<u64>() / 2;
    }
}

/// The columns of a batch that words are made of.
pub(super) struct WordInput<'a> {
    received: &'a StringViewArray,
    times: [&'a arrow::array::Int32Array; 3],
    ips: [&'a StringViewArray; 2],
    ports: [&'a arrow::array::Int32Array; 2],
    protocol: &'a StringViewArray,
    counters: [&'a arrow::array::Int64Array; 2],
    protocols: BTreeMap<&'a str, Option<Protocol>>,
    compat: Compat,
}

/// A flow's ends with their words.
pub(super) type Ends = [(u128, FlowWord); 2];

impl<'a> WordInput<'a> {
    /// `batch` starts with [`WORD_COLUMNS`].
    pub(super) fn try_new(batch: &'a RecordBatch, compat: Compat) -> Result<Self, DataFusionError> {
        let column = |index: usize| {
            let named = batch
                .schema_ref()
                .fields()
                .get(index)
                .map(|field| field.name().as_str());
            if named == WORD_COLUMNS.get(index).copied() {
                Ok(batch.column(index))
            } else {
                Err(DataFusionError::Internal(format!(
                    "column {index} of the scan is {named:?}"
                )))
            }
        };
        let wrong = |index: usize| {
            DataFusionError::Plan(format!(
                "column {} has an unexpected type",
                WORD_COLUMNS[index]
            ))
        };
        let text = |index| {
            column(index)?
                .as_string_view_opt()
                .ok_or_else(|| wrong(index))
        };
        let int = |index| {
            column(index)?
                .as_primitive_opt::<Int32Type>()
                .ok_or_else(|| wrong(index))
        };
        let long = |index| {
            column(index)?
                .as_primitive_opt::<Int64Type>()
                .ok_or_else(|| wrong(index))
        };
        Ok(Self {
            received: text(0)?,
            times: [int(1)?, int(2)?, int(3)?],
            ips: [text(4)?, text(5)?],
            ports: [int(6)?, int(7)?],
            protocol: text(8)?,
            counters: [long(9)?, long(10)?],
            protocols: BTreeMap::new(),
            compat,
        })
    }

    /// Returns the ends of a row, or why it is not analysed.
    pub(super) fn ends(&mut self, row: usize) -> Result<Ends, Excluded> {
        let int = |array: &arrow::array::Int32Array| {
            array.is_valid(row).then(|| i64::from(array.value(row)))
        };
        let long = |array: &arrow::array::Int64Array| array.is_valid(row).then(|| array.value(row));
        let [hour, minute, second] = self.times.map(int);
        let [src_port, dst_port] = self.ports.map(int);
        let [packets, bytes] = self.counters.map(long);
        let checked = FlowRow {
            hour,
            minute,
            second,
            has_received: self.received.is_valid(row),
            has_src_ip: self.ips[0].is_valid(row),
            has_dst_ip: self.ips[1].is_valid(row),
            src_port,
            dst_port,
            bytes,
            packets,
        };
        filter::check(&checked).map_err(Excluded::Invalid)?;
        let protocol = self.protocol(row).ok_or(Excluded::Protocol)?;
        let port = |port: Option<i64>| u16::try_from(port.unwrap_or(0)).map_err(|_| Excluded::Port);
        let fields = FlowFields {
            hour: hour.and_then(|hour| u8::try_from(hour).ok()).unwrap_or(0),
            src_port: port(src_port)?,
            dst_port: port(dst_port)?,
            protocol,
            bytes: bytes.unwrap_or(0),
            packets: packets.unwrap_or(0),
        };
        let ip = |array: &StringViewArray| parse_ip(array.value(row)).ok_or(Excluded::Address);
        let [src, dst] = flow::words(&fields, self.compat);
        Ok([(ip(self.ips[0])?, src), (ip(self.ips[1])?, dst)])
    }

    fn protocol(&mut self, row: usize) -> Option<Protocol> {
        if self.protocol.is_null(row) {
            return Some(Protocol::NULL);
        }
        let name = self.protocol.value(row);
        *self
            .protocols
            .entry(name)
            .or_insert_with(|| Protocol::of_name(name))
    }
}

/// Parses an address.
fn parse_ip(text: &str) -> Option<u128> {
    let v4: Option<Ipv4Addr> = text.parse().ok();
    match v4 {
        Some(v4) => Some(ip_key(IpAddr::V4(v4))),
        None => text.parse().ok().map(|v6: Ipv6Addr| ip_key(IpAddr::V6(v6))),
    }
}

pub(super) fn run(
    spec: &WordsSpec,
    batch: &RecordBatch,
    progress: &Progress,
) -> Result<RecordBatch, DataFusionError> {
    let mut input = WordInput::try_new(batch, spec.compat())?;
    let mut columns = [(); 3].map(|()| Vec::with_capacity(batch.num_rows() * 2));
    for row in 0..batch.num_rows() {
        let mut push = |ip, word| {
            let [hi, lo] = halves(ip);
            columns
                .iter_mut()
                .zip([hi, lo, word])
                .for_each(|(column, value)| column.push(value));
        };
        match input.ends(row) {
            Ok(ends) => ends
                .into_iter()
                .for_each(|(ip, word)| push(ip, word.bits())),
            Err(excluded) => push(0, excluded.code()),
        }
    }
    progress.add(0, batch.num_rows() as u64);
    let columns = columns.map(|column| Arc::new(UInt64Array::from(column)) as _);
    Ok(RecordBatch::try_new(schema(), columns.to_vec())?)
}

/// High and low 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
pub(super) fn halves(ip: u128) -> [u64; 2] {
    [(ip >> 64) as u64, ip as u64]
}
