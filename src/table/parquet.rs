//! Parquet as Hive, Impala, Spark and Spot's own readers take it.
//!
//! Format 1.0, v1 data pages, snappy, no arrow schema in the footer, no unsigned integers, no INT64 timestamps, lower-case
//! columns in table order. Integers that a column of Spot cannot hold are null, as Hive's cast makes them.

use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::datatypes::Field;
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::EnabledStatistics;
use parquet::file::properties::WriterProperties;
use parquet::file::properties::WriterVersion;

/// Rows of a row group; of the `flow` table about 25 MB, so that a file of several fits an HDFS block.
pub const ROW_GROUP_ROWS: usize = 1 << 20;

/// Returns the writer's settings.
#[must_use]
pub fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("klieg version ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

/// Returns them for a writer of batches.
#[must_use]
pub fn options() -> ArrowWriterOptions {
    ArrowWriterOptions::new()
        .with_properties(properties())
        .with_skip_arrow_metadata(true)
}

/// A column's type in Hive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HiveType {
    /// 32 bits.
    Int,
    /// 64 bits.
    Bigint,
    /// 32 bits.
    Float,
    /// 64 bits.
    Double,
    /// Text.
    String,
}

impl HiveType {
    /// Returns its Arrow type.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Int => DataType::Int32,
            Self::Bigint => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::String => DataType::Utf8,
        }
    }

    /// Returns its name in DDL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Bigint => "BIGINT",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::String => "STRING",
        }
    }
}

/// Returns the Arrow schema of columns; all are nullable, as Hive's are.
#[must_use]
pub fn schema(columns: &[(&str, HiveType)]) -> SchemaRef {
    let fields = columns
        .iter()
        .map(|(name, kind)| Field::new(*name, kind.arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
