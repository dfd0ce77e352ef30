//! Flow words, bins and the record filter against what Spot's own functions gave.

use std::fs;

use klieg::word::Compat;
use klieg::word::bins;
use klieg::word::filter;
use klieg::word::filter::FlowRow;
use klieg::word::flow;
use klieg::word::flow::FlowFields;
use klieg::word::flow::FlowWord;
use klieg::word::flow::Protocol;
use serde_json::Value;

fn golden(name: &str) -> Value {
    let text = fs::read_to_string(format!("tests/golden/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn fields(case: &Value) -> FlowFields {
    let port = |name: &str| u16::try_from(case[name].as_u64().unwrap()).unwrap();
    FlowFields {
        hour: u8::try_from(case["hour"].as_u64().unwrap()).unwrap(),
        src_port: port("sport"),
        dst_port: port("dport"),
        protocol: case["proto"]
            .as_str()
            .map_or(Protocol::NULL, |name| Protocol::of_name(name).unwrap()),
        bytes: case["ibyt"].as_i64().unwrap(),
        packets: case["ipkt"].as_i64().unwrap(),
    }
}

/// Cases whose ports exist: a row with another port is not valid, so its word is never made.
fn word_cases() -> Vec<Value> {
    let mut cases = golden("flow_words")["cases"].as_array().unwrap().clone();
    cases.retain(|case| {
        ["sport", "dport"]
            .iter()
            .all(|port| (0..65536).contains(&case[port].as_i64().unwrap()))
    });
    assert_eq!(cases.len(), 109);
    cases
}

#[test]
fn words_are_spots() {
    for case in &word_cases() {
        let words = flow::words(&fields(case), Compat::Spot).map(|word| word.to_string());
        assert_eq!(
            words,
            [
                case["src_word"].as_str().unwrap(),
                case["dst_word"].as_str().unwrap()
            ],
            "{case}"
        );
    }
}

/// Below 2^48 the two arithmetics agree, so only counts above it may differ.
#[test]
fn mended_words_differ_from_spots_only_in_huge_counts() {
    for case in &word_cases() {
        let fields = fields(case);
        if fields.bytes.max(fields.packets) < 1 << 48 {
            assert_eq!(
                flow::words(&fields, Compat::Spot),
                flow::words(&fields, Compat::Mended),
                "{case}"
            );
        }
    }
}

#[test]
fn bins_are_spots() {
    let mut integers = 0;
    for case in golden("math_utils")["ceil_log2"].as_array().unwrap() {
        let value = case["x"].as_f64().unwrap();
        // The words bin a count + 1, so from 1 on; fractions and 0 do not occur.
        if value < 1.0 || value.fract() != 0.0 {
            continue;
        }
        integers += 1;
        let count = serde_json::from_str::<i128>(&format!("{value:.0}")).unwrap() - 1;
        let bin = bins::ceil_log2_plus_one(i64::try_from(count).unwrap(), Compat::Spot);
        assert_eq!(i64::from(bin), case["y"].as_i64().unwrap(), "{case}");
    }
    assert!(integers > 100);
}

#[test]
fn mended_bins_are_exact_at_every_power_of_two() {
    for power in 0_u8..63 {
        let value = 1_i64 << power;
        assert_eq!(
            bins::ceil_log2_plus_one(value, Compat::Mended),
            power + 1,
            "2^{power}"
        );
        assert_eq!(
            bins::ceil_log2_plus_one(value - 1, Compat::Mended),
            power,
            "2^{power} - 1"
        );
    }
    assert_eq!(bins::ceil_log2_plus_one(i64::MAX, Compat::Mended), 63);
}

#[test]
fn bits_of_a_word_are_its_identity() {
    let mut seen = std::collections::BTreeMap::new();
    for case in &word_cases() {
        for word in flow::words(&fields(case), Compat::Spot) {
            assert_eq!(FlowWord::from_bits(word.bits()), word);
            let bits = seen.entry(word.to_string()).or_insert(word.bits());
            assert_eq!(*bits, word.bits(), "{word}");
        }
    }
    let mut bits: Vec<_> = seen.values().collect();
    bits.sort_unstable();
    bits.dedup();
    assert_eq!(bits.len(), seen.len(), "two texts with the same bits");
}

#[test]
fn protocols_with_one_name_are_one() {
    assert_eq!(Protocol::of_number(87), Protocol::of_number(6));
    assert_eq!(Protocol::of_number(255).to_string(), "255");
    assert_eq!(Protocol::of_name("255"), Some(Protocol::of_number(255)));
    assert_eq!(Protocol::of_name("6"), None, "6 has a name");
    assert_eq!(Protocol::of_name("no such"), None);
}

fn filter_row(columns: &[Value], row: &[Value]) -> FlowRow {
    let cell = |name: &str| {
        let index = columns.iter().position(|column| column == name).unwrap();
        &row[index]
    };
    FlowRow {
        hour: cell("trhour").as_i64(),
        minute: cell("trminute").as_i64(),
        second: cell("trsec").as_i64(),
        has_received: !cell("treceived").is_null(),
        has_src_ip: !cell("sip").is_null(),
        has_dst_ip: !cell("dip").is_null(),
        src_port: cell("sport").as_i64(),
        dst_port: cell("dport").as_i64(),
        bytes: cell("ibyt").as_i64(),
        packets: cell("ipkt").as_i64(),
    }
}

#[test]
fn valid_rows_are_spots_and_every_other_row_has_a_reason() {
    let golden = golden("record_filters");
    let flow = golden["pipelines"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["pipeline"] == "flow")
        .unwrap();
    let columns = flow["columns"].as_array().unwrap();
    let valid: Vec<_> = flow["valid_rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap())
        .collect();
    for (index, row) in (0_u64..).zip(flow["rows"].as_array().unwrap()) {
        let checked = filter::check(&filter_row(columns, row.as_array().unwrap()));
        assert_eq!(
            checked.is_ok(),
            valid.contains(&index),
            "row {index}: {checked:?}"
        );
    }
}
