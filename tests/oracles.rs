//! Cases from other implementations through `attn verify` itself: the folder `tests/oracles`, and a larger one when
//! `ATTN_ORACLES` names it. Planted faults must be found.

#![cfg(feature = "cli")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn slice() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracles")
}

fn verify(folder: &Path, options: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_attn"))
        .args(["verify", "--json", "--cases"])
        .arg(folder)
        .args(options)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, report)
}

fn count(report: &Value, what: &str) -> u64 {
    report["total"][what]
        .as_u64()
        .unwrap_or_else(|| panic!("no {what} in {report}"))
}

/// What did not pass, for messages.
fn others(report: &Value) -> String {
    let cases = report["cases"].as_array().cloned().unwrap_or_default();
    let others = cases.iter().filter(|case| case["outcome"]["kind"] != "passed");
    others
        .map(|case| format!("\n{}: {}", case["name"], case["outcome"]))
        .collect()
}

fn adapters() -> Vec<String> {
    let names = wgpu_attention::adapters(None);
    names.iter().map(|adapter| adapter.get_info().name).collect()
}

#[test]
fn every_case_passes_every_way() {
    let manifest: Value = serde_json::from_slice(&fs::read(slice().join("manifest.json")).unwrap()).unwrap();
    let cases = manifest["cases"].as_array().unwrap().len() as u64;
    let mut ways = vec![vec!["--reference".to_owned()]];
    for adapter in adapters() {
        for tier in ["portable", "extended"] {
            for algorithm in ["auto", "three-kernels"] {
                let options = ["--adapter", &adapter, "--tier", tier, "--algorithm", algorithm];
                ways.push(options.map(str::to_owned).to_vec());
            }
        }
    }
    for way in ways {
        let options: Vec<_> = way.iter().map(String::as_str).collect();
        let (output, report) = verify(&slice(), &options);
        assert!(
            output.status.success(),
            "{options:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(count(&report, "passed"), cases, "{options:?}: {}", others(&report));
    }
}

/// The larger folder: nothing that can be computed fails.
#[test]
fn the_whole_folder_has_no_failure() {
    let Some(folder) = std::env::var_os("ATTN_ORACLES") else {
        return;
    };
    let sets = [
        "--set", "sdpa", "--set", "mha", "--set", "minilm", "--set", "rope", "--set", "smollm2",
    ];
    let (output, report) = verify(Path::new(&folder), &sets);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(count(&report, "passed") >= 70, "{}", others(&report));
}

/// A copy of the folder with something done to it.
fn spoiled(name: &str, spoil: impl FnOnce(&Path)) -> (Output, Value) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    for file in ["manifest.json", "mha.safetensors", "sdpa.safetensors"] {
        fs::write(folder.join(file), fs::read(slice().join(file)).unwrap()).unwrap();
    }
    spoil(&folder);
    verify(&folder, &["--feature", "basic", "--feature", "one_head"])
}

#[test]
fn a_wrong_expectation_is_a_failure() {
    let (output, report) = spoiled("wrong", |folder| {
        let path = folder.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        let expectation = "\"o\":\"sdpa/plain/o\"";
        assert!(text.contains(expectation));
        // Of the same shape, but other numbers.
        fs::write(&path, text.replacen(expectation, "\"o\":\"sdpa/plain/q\"", 1)).unwrap();
    });
    assert!(!output.status.success());
    assert_eq!(count(&report, "failed"), 1, "{}", others(&report));
}

#[test]
fn an_unreadable_file_is_a_failure() {
    let (output, report) = spoiled("unreadable", |folder| {
        let path = folder.join("sdpa.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(!output.status.success());
    assert!(count(&report, "unreadable") >= 1, "{}", others(&report));
    assert!(count(&report, "passed") >= 1, "{}", others(&report));
}

#[test]
fn a_missing_folder_is_named() {
    let (output, _) = verify(Path::new("no/such/folder"), &[]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no/such/folder"));
}
