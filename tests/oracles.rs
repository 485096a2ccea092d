//! Cases from other implementations through `attn verify` itself: the folder `tests/oracles`, and a larger one when
//! `ATTN_ORACLES` names it. Planted faults must be found.

#![cfg(feature = "cli")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
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

/// What cannot be computed is counted and named, and is no failure.
#[test]
fn an_unknown_operator_is_unsupported() {
    let (output, report) = spoiled("unknown", |folder| {
        let path = folder.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        let case = "\"name\":\"sdpa/plain\",\"set\":\"sdpa\",\"file\":\"sdpa.safetensors\",\"op\":\"sdpa\"";
        assert!(text.contains(case));
        let unknown = case.replace("\"op\":\"sdpa\"", "\"op\":\"of tomorrow\"");
        fs::write(&path, text.replacen(case, &unknown, 1)).unwrap();
    });
    assert!(output.status.success());
    assert_eq!(count(&report, "unsupported"), 1, "{}", others(&report));
    assert!(others(&report).contains("of tomorrow"), "{}", others(&report));
}

#[test]
fn sets_and_features_select() {
    let names = |options: &[&str]| -> Vec<String> {
        let (output, report) = verify(&slice(), options);
        assert!(output.status.success(), "{options:?}");
        let cases = report["cases"].as_array().unwrap().iter();
        cases.map(|case| case["name"].as_str().unwrap().to_owned()).collect()
    };
    let mha = names(&["--set", "mha"]);
    assert!(
        !mha.is_empty() && mha.iter().all(|name| name.starts_with("mha/")),
        "{mha:?}"
    );
    assert_eq!(names(&["--feature", "one_head"]), ["mha/one_head"]);
    for wrong in [["--set", "nothing"], ["--feature", "nothing"]] {
        let (output, _) = verify(&slice(), &wrong);
        assert!(!output.status.success());
        // What there is instead.
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains("there are") && message.contains("mha"), "{message}");
    }
}

/// The dump holds each expected output under its case's name, in the stored shape, and the numbers that were compared.
#[test]
fn the_dump_holds_every_output() {
    let dump = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dump.safetensors");
    let (output, _) = verify(&slice(), &["--dump", dump.to_str().unwrap()]);
    assert!(output.status.success());
    let manifest: Value = serde_json::from_slice(&fs::read(slice().join("manifest.json")).unwrap()).unwrap();
    let bytes = fs::read(dump).unwrap();
    let computed = SafeTensors::deserialize(&bytes).unwrap();
    let mut outputs = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let file = fs::read(slice().join(case["file"].as_str().unwrap())).unwrap();
        let stored = SafeTensors::deserialize(&file).unwrap();
        for (role, name) in case["outputs"].as_object().unwrap() {
            let got = computed
                .tensor(&format!("{}::{role}", case["name"].as_str().unwrap()))
                .unwrap();
            let want = stored.tensor(name.as_str().unwrap()).unwrap();
            assert_eq!(got.shape(), want.shape(), "{name}");
            let tolerance = |part: &str| case["tol"][role][part].as_f64().unwrap();
            let (atol, rtol) = (tolerance("atol"), tolerance("rtol"));
            for (got, want) in numbers(&got).into_iter().zip(numbers(&want)) {
                let right = got == want || (got - want).abs() <= atol + rtol * want.abs();
                assert!(right, "{name}: {got} {want}");
            }
            outputs += 1;
        }
    }
    assert_eq!(computed.len(), outputs);
}

fn numbers(tensor: &TensorView<'_>) -> Vec<f64> {
    match tensor.dtype() {
        Dtype::F64 => bytemuck::pod_collect_to_vec(tensor.data()),
        Dtype::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data())
            .into_iter()
            .map(f64::from)
            .collect(),
        other => panic!("{other:?}"),
    }
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
