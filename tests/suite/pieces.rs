//! Large raw files in pieces: the rows of the file in one piece, also where a block in its middle explains later records.

use std::fs;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::process::Output;

use arrow::array::RecordBatch;
use klieg::wire::flow::FlowRecord;
use klieg::wire::nfcapd::BlockHeader;
use klieg::wire::nfcapd::Compression;
use klieg::wire::nfcapd::Encoder;
use klieg::wire::nfcapd::Exporter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::run::Warehouse;

const FLOWS: u32 = 60_000;
const NAME: &str = "nfcapd.201607081200";
const LATE: &str = "explains records only after they came";
/// Where layout 2 keeps the place of the appendix and the number of blocks.
const APPENDIX_AT: usize = 24;
const BLOCKS_AT: usize = 36;
const HEADER_BYTES: usize = 40;

/// A file of several blocks whose flows are sampled by a rate that no block names.
fn raw_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    let exporter = Exporter {
        ip: IpAddr::from([192, 0, 2, 1]),
        version: 9,
        domain: 7,
    };
    let file = File::create(&path).unwrap();
    let mut encoder = Encoder::try_new(file, Compression::None, &[(1, exporter)]).unwrap();
    for number in 0..FLOWS {
        let flow = FlowRecord {
            first_ms: 1_467_979_200_000 + u64::from(number),
            last_ms: 1_467_979_200_500 + u64::from(number),
            received_ms: 1_467_979_201_000 + u64::from(number),
            src_ip: IpAddr::from([10, 0, 0, 1]),
            dst_ip: IpAddr::from((0x0a01_0000 + number).to_be_bytes()),
            dst_port: 443,
            protocol: 6,
            packets_in: 3,
            bytes_in: 180,
            exporter_id: 1,
            sampled: true,
            ..FlowRecord::default()
        };
        encoder.push(&flow).unwrap();
    }
    encoder.finish(1_467_979_200).unwrap();
    fs::read(path).unwrap()
}

fn starts(file: &[u8]) -> Vec<usize> {
    let end = usize::try_from(u64_at(file, APPENDIX_AT)).unwrap();
    let mut starts = vec![HEADER_BYTES];
    while *starts.last().unwrap() < end {
        let at = *starts.last().unwrap();
        let header = BlockHeader::decode(file[at..at + 12].try_into().unwrap());
        starts.push(at + 12 + header.size as usize);
    }
    starts
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The same with a block before that at `at` which says that exporter 1 samples one of a hundred.
fn with_sampler(mut file: Vec<u8>, at: usize) -> Vec<u8> {
    let mut block = Vec::new();
    block.extend(1_u32.to_le_bytes());
    block.extend(24_u32.to_le_bytes());
    for part in [3_u16, 0, 15, 24, 1, 1] {
        block.extend(part.to_le_bytes());
    }
    block.extend((-1_i64).to_le_bytes());
    block.extend(1_u32.to_le_bytes());
    block.extend(99_u32.to_le_bytes());
    let appendix = u64_at(&file, APPENDIX_AT) + block.len() as u64;
    file[APPENDIX_AT..APPENDIX_AT + 8].copy_from_slice(&appendix.to_le_bytes());
    let blocks = u32::from_le_bytes(file[BLOCKS_AT..BLOCKS_AT + 4].try_into().unwrap()) + 1;
    file[BLOCKS_AT..BLOCKS_AT + 4].copy_from_slice(&blocks.to_le_bytes());
    file.splice(at..at, block);
    file
}

/// What a run made of the file: its rows, its parts, its counts, what it told.
struct Made {
    rows: RecordBatch,
    parts: usize,
    counts: Value,
    told: String,
}

fn ingest(file: &[u8], split_bytes: &str, more: &[&str]) -> Made {
    let warehouse = Warehouse::empty();
    fs::write(warehouse.path("flow/landing").join(NAME), file).unwrap();
    let split_bytes = format!("ingest.split_bytes={split_bytes}");
    let fixed = [
        "--date",
        "2016-07-08",
        "--steps",
        "ingest",
        "-D",
        &split_bytes,
    ];
    let fixed = [
        &fixed[..],
        &["-D", "ingest.rejects_max=1", "--output", "json"],
    ]
    .concat();
    let output: Output = warehouse.run(&[&fixed[..], more].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let parts = warehouse.published();
    let parts: Vec<_> = parts
        .keys()
        .filter(|name| name.ends_with("parquet"))
        .collect();
    let batches: Vec<RecordBatch> = parts
        .iter()
        .flat_map(|name| rows(&warehouse.path(name)))
        .collect();
    Made {
        rows: arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap(),
        parts: parts.len(),
        counts: result["days"][0]["outcome"]["steps"][0]["report"]["counts"].clone(),
        told,
    }
}

fn rows(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

fn assert_same(pieces: &Made, whole: &Made) {
    assert_eq!(whole.parts, 1, "{}", whole.told);
    assert!(pieces.parts > 1, "{} parts: {}", pieces.parts, pieces.told);
    assert!(pieces.rows == whole.rows, "{}", pieces.told);
    for key in ["read", "kept", "outside", "rejected"] {
        assert_eq!(pieces.counts[key], whole.counts[key], "{}", pieces.counts);
    }
}

#[test]
fn a_large_file_gives_the_rows_of_one_piece() {
    let file = raw_file();
    assert!(starts(&file).len() > 5, "{}", starts(&file).len());
    let whole = ingest(&file, "1GiB", &[]);
    assert_eq!(whole.rows.num_rows(), FLOWS as usize);
    for (size, cluster) in [("1MiB", None), ("1B", None), ("1MiB", Some("local:2"))] {
        let more = cluster.map(|name| ["--cluster", name]);
        let pieces = ingest(&file, size, more.as_ref().map_or(&[], |more| &more[..]));
        assert_same(&pieces, &whole);
        assert!(!pieces.told.contains(LATE), "{}", pieces.told);
    }
}

#[test]
fn a_block_in_the_middle_explains_what_later_pieces_hold() {
    let file = raw_file();
    let middle = starts(&file)[3];
    let file = with_sampler(file, middle);
    let whole = ingest(&file, "1GiB", &[]);
    let nulls = whole.rows.column_by_name("sampling").unwrap();
    let nulls = nulls.null_count();
    assert!(0 < nulls && nulls < FLOWS as usize, "{nulls}");
    for more in [&[][..], &["--cluster", "local:2"]] {
        let pieces = ingest(&file, "1MiB", more);
        assert_same(&pieces, &whole);
        assert!(pieces.told.contains(LATE), "{}", pieces.told);
    }
}

#[test]
fn a_large_file_that_is_cut_loses_what_it_announces() {
    let file = raw_file();
    let starts = starts(&file);
    for end in [starts[4], starts[4] + 5, starts[4] + 100_000] {
        let cut = &file[..end];
        let whole = ingest(cut, "1GiB", &[]);
        assert_ne!(
            whole.counts["rejected"],
            serde_json::json!({}),
            "{}",
            whole.counts
        );
        assert_same(&ingest(cut, "1MiB", &[]), &whole);
    }
}
