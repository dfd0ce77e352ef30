//! Damaged files: whatever the bytes, the decoder ends, does not panic, and holds no more than it says.

use std::fs;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;

use klieg::engine::source;
use klieg::engine::source::Block;
use klieg::engine::source::NfcapdFile;
use klieg::wire::nfcapd;
use klieg::wire::nfcapd::BLOCK_BYTES_MAX;
use klieg::wire::nfcapd::Compression;
use klieg::wire::nfcapd::Context;
use klieg::wire::nfcapd::Encoder;

use crate::support::Rng;
use crate::support::shared_data;

/// Decodes all there is; returns flows and rejects.
fn decode(bytes: &[u8]) -> Result<(u64, u64), source::Error> {
    let mut file = NfcapdFile::open(Cursor::new(bytes), bytes.len() as u64)?;
    let mut total = (0, 0);
    let start = Context::default();
    file.for_each_block(NonZeroUsize::MIN, start, count, |(flows, rejects)| {
        total.0 += flows;
        total.1 += rejects;
        ControlFlow::Continue(())
    })?;
    Ok(total)
}

fn count(block: &Block) -> (u64, u64) {
    let Ok(bytes) = &block.bytes else {
        return (0, 1);
    };
    assert!(
        bytes.capacity() <= 2 * BLOCK_BYTES_MAX,
        "a block may hold {BLOCK_BYTES_MAX} bytes"
    );
    let mut total = (0, 0);
    for flow in nfcapd::records(bytes, block.header.records, &block.context).with_detail() {
        match flow {
            Ok(_) => total.0 += 1,
            Err(_) => total.1 += 1,
        }
    }
    total
}

/// Small files of every compression: two real ones and the encoder's.
fn small_files() -> Vec<Vec<u8>> {
    let real = ["nfcapd/nfcapd-small-lzo", "nfcapd/nfcapd-empty"];
    let paths: Vec<PathBuf> = real.into_iter().filter_map(shared_data).collect();
    let mut files: Vec<_> = paths
        .into_iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let mut encoder = Encoder::try_new(Cursor::new(Vec::new()), compression, &[]).unwrap();
        for port in 0..20 {
            let flow = klieg::wire::flow::FlowRecord {
                src_port: port,
                first_ms: 1_467_936_000_000,
                ..Default::default()
            };
            encoder.push(&flow).unwrap();
        }
        files.push(encoder.finish(0).unwrap().into_inner());
    }
    files
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(4) {
        0 => bytes.truncate(rng.below(bytes.len())),
        1 => {
            // A length field: the two or four bytes get an extreme value.
            let at = rng.below(bytes.len());
            let value = [0_u8, 1, 3, 0x7f, 0x80, 0xff][rng.below(6)];
            let width = [2, 4][rng.below(2)];
            bytes
                .iter_mut()
                .skip(at)
                .take(width)
                .for_each(|byte| *byte = value);
        }
        _ => {
            for _ in 0..=rng.below(8) {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
        }
    }
}

#[test]
fn a_hundred_thousand_mutants_end_without_panic() {
    let files = small_files();
    let mut rng = Rng(20_261_124);
    let (mut read, mut refused) = (0_u32, 0_u32);
    for index in 0..100_000 {
        let mut bytes = files[index % files.len()].clone();
        mutate(&mut bytes, &mut rng);
        match decode(&bytes) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert_eq!(read + refused, 100_000);
    assert!(
        read > 50_000 && refused > 1000,
        "mutants should reach the blocks and the header: {read} {refused}"
    );
}

#[test]
fn a_file_cut_at_any_byte_gives_a_prefix_of_its_records() {
    for bytes in small_files() {
        let whole = decode(&bytes).unwrap().0;
        for end in 0..bytes.len() {
            if let Ok((flows, _)) = decode(&bytes[..end]) {
                assert!(flows <= whole);
            }
        }
    }
}

#[test]
fn a_cut_block_is_one_reject_and_what_came_before_is_kept() {
    let Some(path) = shared_data("nfcapd/nfcapd-large-bz2") else {
        return;
    };
    let bytes = fs::read(path).unwrap();
    let (flows, rejects) = decode(&bytes[..bytes.len() - 1]).unwrap();
    assert!(flows > 80_000, "{flows}");
    assert_eq!(rejects, 1);
}
