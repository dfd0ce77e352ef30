//! Checks on the source tree itself: layering, file length, forgotten test files.

use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module, lowest first, with the modules it may import.
/// A new arrow is a design change: say why in the commit message.
const LAYERS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("word", &["wire"]),
    ("parallel", &[]),
    ("column", &[]),
    ("ml", &["parallel", "column"]),
    ("config", &[]),
    ("table", &["wire"]),
    ("store", &["config", "parallel"]),
    ("catalog", &["table", "config"]),
    ("synth", &["wire", "table", "ml"]),
    (
        "engine",
        &[
            "wire", "table", "store", "word", "ml", "parallel", "column", "config",
        ],
    ),
    (
        "detect",
        &[
            "engine", "ml", "word", "table", "config", "parallel", "column",
        ],
    ),
    (
        "step",
        &[
            "detect", "engine", "store", "table", "config", "ml", "word", "parallel", "column",
        ],
    ),
    (
        "job",
        &[
            "step", "store", "catalog", "engine", "parallel", "table", "config",
        ],
    ),
    (
        "cli",
        &[
            "job", "step", "synth", "detect", "engine", "store", "catalog", "table", "config",
            "ml", "word", "wire", "column",
        ],
    ),
];

/// External crates that only these modules may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("anyhow", &["cli"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("hdfs_native", &["store"]),
    ("hive_metastore", &["catalog"]),
    ("libloading", &["catalog"]),
    ("memmap2", &["column"]),
    ("pilota", &["catalog"]),
    ("datafusion", &["engine", "step", "job"]),
    ("datafusion_proto", &["engine"]),
    ("ballista_core", &["engine"]),
    ("ballista_executor", &["engine"]),
    ("ballista_scheduler", &["engine"]),
    ("arrow_flight", &["engine"]),
    ("rcgen", &["engine"]),
    ("tonic", &["engine"]),
    ("axum", &["engine", "cli"]),
];

const FILE_LINES_MAX: usize = 500;

#[test]
fn modules_import_only_what_their_layer_allows() {
    let mut errors = Vec::new();
    for (path, text) in rust_files("src") {
        let Some(module) = top_module(&path) else {
            continue;
        };
        let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            errors.push(format!("{}: add `{module}` to LAYERS", path.display()));
            continue;
        };
        let code = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (index, line) in code {
            let at = format!("{}:{}", path.display(), index + 1);
            for target in line.split("crate::").skip(1).map(first_segment) {
                if target != module && !below.contains(&target) {
                    errors.push(format!("{at}: `{module}` must not import `{target}`"));
                }
            }
            for (krate, modules) in CONFINED {
                if line.contains(&format!("{krate}::")) && !modules.contains(&module.as_str()) {
                    errors.push(format!("{at}: `{krate}` is confined to {modules:?}"));
                }
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn source_files_are_short() {
    for (path, text) in rust_files("src") {
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or(&text);
        let lines = code.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{}: {lines} lines before the tests",
            path.display()
        );
    }
}

#[test]
fn every_test_file_is_in_the_suite() {
    let main = fs::read_to_string("tests/suite/main.rs").unwrap();
    for (path, _) in rust_files("tests/suite") {
        let module = top_module(&path).unwrap();
        assert!(
            module == "main" || main.contains(&format!("mod {module};")),
            "{} never runs",
            path.display()
        );
    }
}

/// `crate::wire::dns` gives `wire`; a braced import gives "" and so fails the layer check.
fn first_segment(rest: &str) -> &str {
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    &rest[..end]
}

/// `src/wire/dns.rs` and `src/wire.rs` belong to `wire`; `src/lib.rs` and `src/main.rs` to no layer.
fn top_module(path: &Path) -> Option<String> {
    let relative = path
        .strip_prefix("src")
        .or_else(|_| path.strip_prefix("tests/suite"))
        .ok()?;
    let name = relative.iter().next()?.to_str()?.trim_end_matches(".rs");
    let root_file = path == Path::new("src/lib.rs") || path == Path::new("src/main.rs");
    (!root_file).then(|| name.to_owned())
}

fn rust_files(dir: impl AsRef<Path>) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}
