//! Results against Spot's own: number texts, lines, table columns, whole analyses.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use klieg::table;
use klieg::table::flow;
use klieg::table::suspicious;
use klieg::table::suspicious::FlowResult;
use klieg::wire::flow::FlowRecord;
use klieg::wire::nfcapd::Compression;
use klieg::wire::nfcapd::Encoder;
use serde_json::Value;

use crate::support::klieg_stdout;

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bits(value: &Value) -> u64 {
    u64::from_str_radix(value["bits"].as_str().unwrap(), 16).unwrap()
}

#[test]
fn numbers_print_as_java_prints_them() {
    let golden = golden("output_format.json");
    for case in golden["java_double_to_string"].as_array().unwrap() {
        let text = suspicious::java_double(f64::from_bits(bits(case)));
        assert_eq!(text, case["text"].as_str().unwrap());
    }
    for case in golden["java_float_to_string"].as_array().unwrap() {
        let value = f32::from_bits(u32::try_from(bits(case)).unwrap());
        assert_eq!(
            suspicious::java_float(value),
            case["text"].as_str().unwrap()
        );
    }
    assert_eq!(suspicious::java_double(-0.0), "-0.0");
    assert_eq!(suspicious::java_double(f64::NAN), "NaN");
    assert_eq!(suspicious::java_double(f64::NEG_INFINITY), "-Infinity");
}

#[test]
fn lines_are_spots() {
    let golden = golden("output_format.json");
    for line in golden["lines"]["flow"].as_array().unwrap() {
        let line = line.as_str().unwrap();
        let cells: Vec<_> = line.split('\t').collect();
        let int = |index: usize| cells[index].parse().ok();
        let row = FlowResult {
            treceived: Some(cells[0].to_owned()),
            parts: [int(1), int(2), int(3), int(4), int(5), int(6)],
            tdur: cells[7].parse().ok(),
            sip: Some(cells[8].to_owned()),
            dip: Some(cells[9].to_owned()),
            ports: [int(10), int(11)],
            proto: Some(cells[12].to_owned()),
            counters: [13, 14, 15, 16].map(|index| cells[index].parse().ok()),
        };
        assert_eq!(
            suspicious::result_line(&row, cells[17].parse().unwrap()),
            line
        );
    }
}

#[test]
fn hostile_values_do_not_break_lines() {
    let row = FlowResult {
        treceived: None,
        parts: [None; 6],
        tdur: None,
        sip: Some("a\tb\nc\\".to_owned()),
        dip: None,
        ports: [None; 2],
        proto: None,
        counters: [None; 4],
    };
    let line = suspicious::result_line(&row, 0.5);
    assert_eq!(line.split('\t').count(), 18);
    assert!(
        !line.contains('\n') && line.contains("a\\tb\\nc\\\\"),
        "{line}"
    );
}

#[test]
fn tables_have_spots_columns_first() {
    let golden = golden("hive_tables.json");
    for (name, ours) in [
        ("flow", &flow::COLUMNS[..]),
        ("flow_scores", &suspicious::SCORE_COLUMNS[..]),
    ] {
        let theirs = golden["tables"][name]["columns"].as_array().unwrap();
        for (index, column) in theirs.iter().enumerate() {
            let (our_name, our_type) = ours[index];
            let pair = (column[0].as_str().unwrap(), column[1].as_str().unwrap());
            assert_eq!((our_name, our_type.name()), pair, "{name} {index}");
        }
    }
    let fields = table::flow::schema();
    assert!(
        fields
            .fields()
            .iter()
            .all(|field| *field.name() == field.name().to_lowercase())
    );
}

fn toy_record(row: &Value) -> FlowRecord {
    let ip = |name: &str| row[name].as_str().unwrap().parse::<IpAddr>().unwrap();
    let number = |name: &str| row[name].as_u64().unwrap();
    let time = chrono::NaiveDateTime::parse_from_str(
        row["treceived"].as_str().unwrap(),
        "%Y-%m-%d %H:%M:%S",
    );
    let first_ms = u64::try_from(time.unwrap().and_utc().timestamp_millis()).unwrap();
    FlowRecord {
        first_ms,
        last_ms: first_ms + 972,
        received_ms: first_ms,
        src_ip: ip("sip"),
        dst_ip: ip("dip"),
        src_port: u16::try_from(number("sport")).unwrap(),
        dst_port: u16::try_from(number("dport")).unwrap(),
        protocol: 6,
        packets_in: number("ipkt"),
        bytes_in: number("ibyt"),
        ..FlowRecord::default()
    }
}

/// Spot's whole-analysis test through the whole of klieg: raw file, table, words, model, text file.
#[test]
fn toy_analyses_score_as_spots_do() {
    let golden = golden("e2e_toy.json");
    let cases = golden["cases"].as_array().unwrap();
    for case in cases.iter().filter(|case| case["pipeline"] == "flow") {
        let folder = tempfile::tempdir().unwrap();
        let landing = folder.path().join("flow/landing");
        std::fs::create_dir_all(&landing).unwrap();
        let file = File::create(landing.join("nfcapd.201605051200")).unwrap();
        let mut encoder = Encoder::try_new(file, Compression::Lz4, &[]).unwrap();
        for row in case["rows"].as_array().unwrap() {
            for _ in 0..row["times"].as_u64().unwrap() {
                encoder.push(&toy_record(&row["row"])).unwrap();
            }
        }
        drop(encoder.finish(1_462_492_800).unwrap());
        let warehouse = format!("warehouse={}", folder.path().display());
        for (job, more) in [
            ("flow-spot.yaml", "suspicious.threshold=1"),
            ("flow.yaml", "suspicious.threshold=1"),
        ] {
            let job = format!("{}/jobs/{job}", env!("CARGO_MANIFEST_DIR"));
            let args = [
                "run",
                &job,
                "--date",
                "20160505",
                "-D",
                &warehouse,
                "-D",
                more,
                "-D",
                "ingest.slack=1d",
            ];
            klieg_stdout(&args);
            let results = folder
                .path()
                .join("flow/scored_results/20160505/scores/flow_results.csv");
            let text = std::fs::read_to_string(results).unwrap();
            let rows = case["rows"].as_array().unwrap();
            let total: u64 = rows.iter().map(|row| row["times"].as_u64().unwrap()).sum();
            assert_eq!(text.lines().count() as u64, total, "{job}");
            for line in text.lines() {
                let (time, score) = (
                    line.split('\t').next().unwrap(),
                    line.rsplit('\t').next().unwrap(),
                );
                let row = rows
                    .iter()
                    .find(|row| row["row"]["treceived"] == *time)
                    .unwrap();
                let (score, wanted): (f64, _) =
                    (score.parse().unwrap(), row["score"].as_f64().unwrap());
                assert!(
                    (score - wanted).abs() < golden["tolerance"].as_f64().unwrap(),
                    "{job}: {line}"
                );
            }
        }
    }
}
