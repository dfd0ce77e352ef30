//! Saved models: one Parquet file a model, a row a word.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::Float32Array;
use arrow::array::RecordBatch;
use arrow::array::StringArray;
use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use crate::detect::corpus::DayCorpus;
use crate::detect::models::Kind;
use crate::detect::models::ModelError;
use crate::ml::lda::Fit;
use crate::table;
use crate::word::flow::FlowWord;

/// Expected counts below this are written as 0: they make files large and no probability that is above its prior.
const COUNT_MIN: f64 = 1e-3;
/// Words of a batch.
const BATCH_WORDS: usize = 1 << 16;

/// Writes `<kind>-<model>.parquet`: `word` as text, then the expected counts of each topic, `t0`, `t1`, …; with the prior of
/// the configuration they give the word probabilities.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    folder: &Path,
    kind: Kind,
    model: usize,
    fit: &Fit,
    corpus: &DayCorpus,
) -> Result<(), ModelError> {
    let path = folder.join(format!("{}-{model}.parquet", kind.name()));
    let fail = |error| ModelError::File {
        path: path.display().to_string(),
        error,
    };
    write_file(&path, fit, corpus).map_err(fail)
}

fn write_file(path: &Path, fit: &Fit, corpus: &DayCorpus) -> Result<(), ParquetError> {
    let topics = fit.model.topics();
    let mut fields = vec![Field::new("word", DataType::Utf8, false)];
    fields
        .extend((0..topics).map(|topic| Field::new(format!("t{topic}"), DataType::Float32, false)));
    let schema = Arc::new(Schema::new(fields));
    let options = table::parquet::options();
    let mut writer =
        ArrowWriter::try_new_with_options(File::create(path)?, Arc::clone(&schema), options)?;
    let counts = fit.model.counts().chunks(topics * BATCH_WORDS);
    for (words, counts) in corpus.words.chunks(BATCH_WORDS).zip(counts) {
        let texts = words
            .iter()
            .map(|&word| Some(FlowWord::from_bits(word).to_string()));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(texts.collect::<StringArray>())];
        columns.extend((0..topics).map(|topic| column(counts, topics, topic)));
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.finish()?;
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "the file is float32")]
fn column(counts: &[f64], topics: usize, topic: usize) -> ArrayRef {
    let values = counts.iter().skip(topic).step_by(topics);
    let rounded = values.map(|&count| if count < COUNT_MIN { 0.0 } else { count as f32 });
    Arc::new(rounded.collect::<Float32Array>())
}
