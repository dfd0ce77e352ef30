//! Scores of pairs under a topic model as tasks: shards and φ come as for an E-step, a row for each pair goes back.

use std::sync::Arc;

use arrow::array::Array;
use arrow::array::AsArray as _;
use arrow::array::Float32Array;
use arrow::array::RecordBatch;
use arrow::array::UInt32Array;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Float32Type;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::datatypes::UInt32Type;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use serde::Deserialize;
use serde::Serialize;

use crate::engine::Sink;
use crate::engine::fold;
use crate::engine::fold::Place;
use crate::engine::task;
use crate::store::Store;

/// Scores under a model.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ScoreSpec {
    /// File of the warehouse with the shards.
    pub corpus: String,
    /// File of the warehouse with φ under which documents are folded in, and then φ without its prior.
    pub topics: String,
    /// Bits of a, the pseudo-count of each topic in a document.
    pub document_pseudo_count: u32,
}

/// Pairs of a batch.
const BATCH_PAIRS: usize = 1 << 16;

/// Rows are the place of a shard in the list that was asked for, and the score of its next pair.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("place", DataType::UInt32, false),
        Field::new("score", DataType::Float32, false),
    ]))
}

/// Scores the pairs of some shards.
pub(super) fn run(
    spec: &ScoreSpec,
    places: &[Place],
    (store, cache_bytes): (&Store, usize),
    memory: &MemoryReservation,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let room = fold::room_of_topics(cache_bytes);
    // A row takes no more than its pair in the file.
    let rows: usize = places.iter().map(|&(.., bytes)| bytes as usize).sum();
    // φ beyond its room, the rows of it that a shard needs, and what goes back.
    let ask = |phi: usize| {
        let needed = phi.saturating_add(phi.saturating_sub(room));
        task::reserve(memory, needed.saturating_add(rows), || {
            format!(
                "two tables of topics in {} MiB and the scores of a task (or train in the driver: cluster.train_from)",
                phi >> 20
            )
        })
    };
    let tables = fold::topics((store, &spec.topics), cache_bytes, ask)?;
    let [smooth, plain] = &tables[..] else {
        return Err(DataFusionError::Internal("φ is not there twice".to_owned()));
    };
    ask(smooth.memory() + plain.memory())?;
    let a = f32::from_bits(spec.document_pseudo_count);
    let (mut reader, mut done) = (None, Vec::new());
    for &place in places {
        let shard = fold::shard((store, &spec.corpus), cache_bytes, (place, &mut reader))?;
        let scores = shard.scores((smooth, plain), a).map_err(fold::invalid)?;
        for scores in scores.chunks(BATCH_PAIRS) {
            let places = UInt32Array::from_value(place.1, scores.len());
            let scores = Float32Array::from(scores.to_vec());
            let columns: [Arc<dyn Array>; 2] = [Arc::new(places), Arc::new(scores)];
            done.push(RecordBatch::try_new(schema(), columns.to_vec())?);
        }
    }
    Ok(done)
}

/// Scores by the place of their shard, in the order in which its rows come.
#[derive(Debug)]
pub(super) struct Scored(pub(super) Vec<Vec<f32>>);

impl Sink for Scored {
    fn begin(&mut self) {
        self.0.iter_mut().for_each(Vec::clear);
    }

    fn add(&mut self, batch: RecordBatch) -> Result<(), DataFusionError> {
        let wrong = || DataFusionError::Internal("scores have unexpected columns".to_owned());
        let places = batch.column(0).as_primitive_opt::<UInt32Type>();
        let scores = batch.column(1).as_primitive_opt::<Float32Type>();
        let (places, scores) = (places.ok_or_else(wrong)?, scores.ok_or_else(wrong)?);
        let (places, mut scores) = (places.values(), &scores.values()[..]);
        for run in places.chunk_by(|left, right| left == right) {
            let (of_shard, rest) = scores.split_at(run.len());
            let shard = self.0.get_mut(run[0] as usize).ok_or_else(wrong)?;
            shard.extend(of_shard);
            scores = rest;
        }
        Ok(())
    }
}
