//! `klieg eval topics` as a user meets it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::Int32Array;
use arrow::array::Int64Array;
use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;

use crate::support::klieg;
use crate::support::klieg_stdout;

/// Two kinds of documents, each with words of its own; the third name lets a test leave a column out.
fn write_corpus(path: &Path, count_column: &str) {
    let pairs = (0..400_i64).flat_map(|document| {
        (0..10).map(move |word| (document, word + 10 * i32::try_from(document % 2).unwrap()))
    });
    let (documents, words): (Vec<_>, Vec<_>) = pairs.unzip();
    let counts = vec![3; words.len()];
    let columns: [(&str, ArrayRef); 3] = [
        ("doc", Arc::new(Int64Array::from(documents))),
        ("word", Arc::new(Int32Array::from(words))),
        (count_column, Arc::new(Int32Array::from(counts))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn topics_are_written_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, out) = (
        folder.path().join("c.parquet"),
        folder.path().join("phi.f32"),
    );
    write_corpus(&corpus, "count");
    for optimizer in ["em", "online"] {
        let args = [
            "eval",
            "topics",
            "--corpus",
            corpus.to_str().unwrap(),
            "--topics",
            "2",
            "--models",
            "2",
        ];
        let more = ["--optimizer", optimizer, "--out", out.to_str().unwrap()];
        let report: serde_json::Value =
            serde_json::from_str(&klieg_stdout(&[&args[..], &more].concat())).unwrap();
        // Ten words with equal shares: a model that has found the two kinds is as unsure as a die with ten sides.
        let perplexity = report["perplexity"].as_f64().unwrap();
        assert!((9.9..10.6).contains(&perplexity), "{optimizer}: {report}");
        assert_eq!(report["models"].as_array().unwrap().len(), 2);
        assert_eq!(report["vocabulary"], 20);
        let bytes = std::fs::read(&out).unwrap();
        assert_eq!(bytes.len(), 20 * 2 * 4);
        let sum: f32 = bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .sum();
        assert!(
            (sum - 2.0).abs() < 1e-4,
            "each topic is a distribution: {sum}"
        );
    }
}

#[track_caller]
fn assert_fails(args: &[&str], code: i32, says: &str) {
    let output = klieg(&[&["eval", "topics", "--corpus"], args].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "{stderr:?} should say {says:?}");
}

#[test]
fn wrong_values_and_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("c.parquet");
    write_corpus(&corpus, "n");
    let corpus = corpus.to_str().unwrap();
    assert_fails(&["no/such.parquet"], 3, "no/such.parquet: No such file");
    assert_fails(
        &[corpus, "--topics", "57"],
        2,
        "topics is 57, must be 1 to 56",
    );
    assert_fails(&[corpus, "--alpha", "1"], 2, "alpha is 1, must be over 1");
    assert_fails(&[corpus], 1, "no column `count`");
    assert_fails(&["LICENSE"], 7, "LICENSE");
}
