//! Rows of the `flow` table that a list needs: one scan finds the flows of lowest score and the flows of chosen groups.
//!
//! A flow's score is the lower one of its two pairs, so a flow is below a bound exactly where one of its pairs is: only those
//! few pairs are looked up. Flows of groups are folded to one row a batch and group.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::OnceLock;

use arrow::array::Array as _;
use arrow::array::AsArray as _;
use arrow::array::Float64Array;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use arrow::array::UInt32Array;
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Float32Type;
use arrow::datatypes::Float64Type;
use arrow::datatypes::Int32Type;
use arrow::datatypes::Int64Type;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::UInt32Type;
use datafusion::error::DataFusionError;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::engine::Progress;
use crate::engine::Sink;
use crate::engine::shared;
use crate::engine::shared::Cache;
use crate::engine::shared::Stay;
use crate::engine::words::WordInput;
use crate::engine::words::WordsSpec;
use crate::store::Store;
use crate::table::flow;
use crate::table::flow::WORD_COLUMNS;
use crate::table::suspicious::FlowResult;

/// Columns of the scan: [`WORD_COLUMNS`], then these.
const MORE_COLUMNS: [&str; 7] = [
    "unix_tstamp",
    "tryear",
    "trmonth",
    "trday",
    "tdur",
    "opkt",
    "obyt",
];
const COLUMNS: usize = WORD_COLUMNS.len() + MORE_COLUMNS.len();

/// Returns the columns that the scan must give.
#[must_use]
pub fn columns() -> Vec<&'static str> {
    WORD_COLUMNS.into_iter().chain(MORE_COLUMNS).collect()
}

/// A pair that is looked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ProbePair {
    /// The document.
    pub ip: u128,
    /// Bits of the word.
    pub word: u64,
    /// Its score, where it is below the bound. Its bits travel: texts of numbers are read with an error in the last place.
    #[serde(serialize_with = "to_bits", deserialize_with = "of_bits")]
    pub score: Option<f64>,
    /// Its number, where it is a chosen group.
    pub group: Option<u32>,
}

#[expect(clippy::ref_option, reason = "as serde asks")]
fn to_bits<S: Serializer>(score: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    score.map(f64::to_bits).serialize(serializer)
}

fn of_bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(|bits| bits.map(f64::from_bits))
}

/// Score and group of pairs, by IP and word; looked up, never iterated.
#[expect(clippy::disallowed_types, reason = "its order is never seen")]
pub(super) type PairTable = std::collections::HashMap<(u128, u64), (Option<f64>, Option<u32>)>;

/// Where the pairs are.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Pairs {
    /// In the plan.
    Here(Vec<ProbePair>),
    /// In a file of the warehouse: their JSON.
    File(String),
}

/// What is looked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ProbeSpec {
    /// How words are made.
    pub words: WordsSpec,
    /// Pairs.
    pub pairs: Pairs,
    #[serde(skip)]
    table: OnceLock<Arc<PairTable>>,
}

/// The last table that was read from a file.
static TABLES: LazyLock<Cache<PairTable>> = LazyLock::new(|| Cache::new(Stay::Last));

impl ProbeSpec {
    /// Makes a spec.
    #[must_use]
    pub fn new(words: WordsSpec, pairs: Pairs) -> Self {
        Self {
            words,
            pairs,
            table: OnceLock::new(),
        }
    }

    /// Returns the table, which all tasks of a process share; `ask` is told of its bytes, also before it is read.
    pub(super) fn table(
        &self,
        store: Option<&Store>,
        ask: impl Fn(usize) -> Result<(), DataFusionError>,
    ) -> Result<Arc<PairTable>, DataFusionError> {
        let table = match (self.table.get(), &self.pairs, store) {
            (Some(table), ..) => Arc::clone(table),
            (None, Pairs::Here(pairs), _) => Arc::new(by_key(pairs)),
            (None, Pairs::File(path), Some(store)) => {
                TABLES.get((path, 0), 1, || {
                    // Its JSON, its pairs and the table are there at the same time.
                    let bytes = shared::read(store, path, |length| ask(length.saturating_mul(3)))?;
                    let pairs: Vec<ProbePair> = serde_json::from_slice(&bytes)?;
                    Ok((by_key(&pairs), 1))
                })?
            }
            (None, Pairs::File(_), None) => {
                return Err(DataFusionError::Internal("no warehouse".to_owned()));
            }
        };
        ask(table_bytes(&table))?;
        Ok(Arc::clone(self.table.get_or_init(|| table)))
    }
}

/// About how many bytes a table takes: a byte more of each place, and at least one place of eight is empty.
fn table_bytes(table: &PairTable) -> usize {
    let place = size_of::<((u128, u64), (Option<f64>, Option<u32>))>() + 1;
    table.capacity() * place / 7 * 8
}

fn by_key(pairs: &[ProbePair]) -> PairTable {
    let entries = pairs.iter();
    let entries = entries.map(|pair| ((pair.ip, pair.word), (pair.score, pair.group)));
    entries.collect()
}

/// What is known of a group from its flows.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupFlows {
    /// Earliest event, seconds since 1970.
    pub first_s: i64,
    /// Latest.
    pub last_s: i64,
    /// The first flow by [`FlowResult::order`].
    pub sample: FlowResult,
}

/// What the scan found.
#[derive(Debug, Default)]
pub struct Found {
    /// Rows that were looked at.
    pub rows: u64,
    limit: usize,
    /// The flows of lowest score, ties by [`FlowResult::order`].
    pub flows: Vec<(f64, FlowResult)>,
    /// Groups by number.
    pub groups: BTreeMap<u32, GroupFlows>,
}

/// `group` null for flows below the bound, whose `score` is not null; both null for the number of rows, in `first_s`; then `first_s`, `last_s` and the columns of the scan.
#[must_use]
pub fn schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("group", DataType::UInt32, true),
        Field::new("score", DataType::Float64, true),
        Field::new("first_s", DataType::Int64, true),
        Field::new("last_s", DataType::Int64, true),
    ];
    let types = flow::schema();
    for name in columns() {
        let kind = types
            .field_with_name(name)
            .map_or(DataType::Utf8, |field| field.data_type().clone());
        // Scans give texts as views.
        let kind = if kind == DataType::Utf8 {
            DataType::Utf8View
        } else {
            kind
        };
        fields.push(Field::new(name, kind, true));
    }
    Arc::new(Schema::new(fields))
}

/// Rows of one batch that go on.
#[derive(Default)]
struct Picked {
    rows: Vec<u32>,
    group: Vec<Option<u32>>,
    score: Vec<Option<f64>>,
    first_s: Vec<Option<i64>>,
    last_s: Vec<Option<i64>>,
}

impl Picked {
    fn push(
        &mut self,
        row: u32,
        group: Option<u32>,
        score: Option<f64>,
        times: Option<(i64, i64)>,
    ) {
        self.rows.push(row);
        self.group.push(group);
        self.score.push(score);
        self.first_s.push(times.map(|times| times.0));
        self.last_s.push(times.map(|times| times.1));
    }
}

pub(super) fn run(
    spec: &ProbeSpec,
    batch: &RecordBatch,
    (progress, table): (&Progress, &PairTable),
) -> Result<RecordBatch, DataFusionError> {
    let mut input = WordInput::try_new(batch, spec.words.compat())?;
    let seconds = batch
        .column(WORD_COLUMNS.len())
        .as_primitive_opt::<Int64Type>();
    let seconds =
        seconds.ok_or_else(|| DataFusionError::Plan("unix_tstamp is no BIGINT".to_owned()))?;
    let rows = FlowRows { batch, skip: 0 };
    let mut groups: BTreeMap<u32, (u32, i64, i64)> = BTreeMap::new();
    let mut picked = Picked::default();
    for row in 0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX) {
        let Ok(ends) = input.ends(row as usize) else {
            continue;
        };
        let mut score: Option<f64> = None;
        for (ip, word) in ends {
            let Some(&(of_pair, group)) = table.get(&(ip, word.bits())) else {
                continue;
            };
            score = match (score, of_pair) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            if let Some(group) = group {
                let time = seconds.value(row as usize);
                let entry = groups.entry(group).or_insert((row, time, time));
                *entry = (
                    rows.lower(entry.0, row),
                    entry.1.min(time),
                    entry.2.max(time),
                );
            }
        }
        if score.is_some() {
            picked.push(row, None, score, None);
        }
    }
    for (group, (row, first, last)) in groups {
        picked.push(row, Some(group), None, Some((first, last)));
    }
    let rows = batch.num_rows();
    if rows > 0 {
        // Says how many rows were looked at.
        let count = i64::try_from(rows).unwrap_or(i64::MAX);
        picked.push(0, None, None, Some((count, count)));
    }
    progress.add(0, rows as u64);
    picked_batch(picked, batch)
}

fn picked_batch(picked: Picked, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
    let rows = UInt32Array::from(picked.rows);
    let mut columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(UInt32Array::from(picked.group)),
        Arc::new(Float64Array::from(picked.score)),
        Arc::new(Int64Array::from(picked.first_s)),
        Arc::new(Int64Array::from(picked.last_s)),
    ];
    for column in &batch.columns()[..COLUMNS] {
        let picked = take(column, &rows, None)?;
        // A view keeps the texts of all rows, which would travel with the few.
        columns.push(match picked.as_string_view_opt() {
            Some(texts) => Arc::new(texts.gc()),
            None => picked,
        });
    }
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// Rows of the scan as results; `skip` columns come before them.
struct FlowRows<'a> {
    batch: &'a RecordBatch,
    skip: usize,
}

impl FlowRows<'_> {
    fn text(&self, index: usize, row: usize) -> Option<String> {
        let array = self.batch.column(self.skip + index).as_string_view_opt()?;
        array.is_valid(row).then(|| array.value(row).to_owned())
    }

    fn get(&self, row: usize) -> FlowResult {
        let int = |index: usize| {
            let array = self
                .batch
                .column(self.skip + index)
                .as_primitive_opt::<Int32Type>()?;
            array.is_valid(row).then(|| array.value(row))
        };
        let long = |index: usize| {
            let array = self
                .batch
                .column(self.skip + index)
                .as_primitive_opt::<Int64Type>()?;
            array.is_valid(row).then(|| array.value(row))
        };
        let float = |index: usize| {
            let array = self
                .batch
                .column(self.skip + index)
                .as_primitive_opt::<Float32Type>()?;
            array.is_valid(row).then(|| array.value(row))
        };
        FlowResult {
            treceived: self.text(0, row),
            parts: [int(12), int(13), int(14), int(1), int(2), int(3)],
            tdur: float(15),
            sip: self.text(4, row),
            dip: self.text(5, row),
            ports: [int(6), int(7)],
            proto: self.text(8, row),
            counters: [long(9), long(10), long(16), long(17)],
        }
    }

    /// Returns the row that comes first.
    fn lower(&self, left: u32, right: u32) -> u32 {
        if left == right {
            return left;
        }
        match self.get(right as usize).order(&self.get(left as usize)) {
            Ordering::Less => right,
            Ordering::Equal | Ordering::Greater => left,
        }
    }
}

impl Sink for Found {
    fn begin(&mut self) {
        *self = Self::new(self.limit);
    }

    fn add(&mut self, batch: RecordBatch) -> Result<(), DataFusionError> {
        let wrong = || DataFusionError::Internal("probe has unexpected columns".to_owned());
        let groups = batch
            .column(0)
            .as_primitive_opt::<UInt32Type>()
            .ok_or_else(wrong)?;
        let scores = batch
            .column(1)
            .as_primitive_opt::<Float64Type>()
            .ok_or_else(wrong)?;
        let long = |index: usize| {
            let column = batch.column(index);
            column.as_primitive_opt::<Int64Type>().ok_or_else(wrong)
        };
        let (firsts, lasts) = (long(2)?, long(3)?);
        let rows = FlowRows {
            batch: &batch,
            skip: 4,
        };
        for (row, group) in groups.iter().enumerate() {
            match group {
                Some(group) => {
                    let found = GroupFlows {
                        first_s: firsts.value(row),
                        last_s: lasts.value(row),
                        sample: rows.get(row),
                    };
                    self.add_group(group, found);
                }
                None if scores.is_valid(row) => {
                    self.flows.push((scores.value(row), rows.get(row)));
                }
                None => self.rows += u64::try_from(firsts.value(row)).unwrap_or(0),
            }
        }
        if self.flows.len() > self.limit.saturating_mul(2) {
            self.cut();
        }
        Ok(())
    }
}

impl Found {
    /// Takes the rows that the probe gives; keeps the `limit` flows of lowest score.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    fn add_group(&mut self, group: u32, found: GroupFlows) {
        match self.groups.entry(group) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(found);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.first_s = known.first_s.min(found.first_s);
                known.last_s = known.last_s.max(found.last_s);
                if found.sample.order(&known.sample) == Ordering::Less {
                    known.sample = found.sample;
                }
            }
        }
    }

    /// Sorts the flows and keeps the first ones.
    pub fn cut(&mut self) {
        self.flows.sort_by(|left, right| {
            left.0
                .total_cmp(&right.0)
                .then_with(|| left.1.order(&right.1))
        });
        self.flows.truncate(self.limit);
    }
}
