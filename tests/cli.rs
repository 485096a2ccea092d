//! The program as people run it: what it prints, writes and refuses.

#![cfg(feature = "cli")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn attn(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attn"))
        .args(arguments)
        .output()
        .unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = attn(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Fails, and says these words on stderr, without a panic.
fn refuses(arguments: &[&str], words: &[&str]) {
    let output = attn(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    for word in words {
        assert!(message.contains(word), "{arguments:?}: no {word:?} in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

#[test]
fn the_demo_shows_words_and_is_right() {
    let output = attn(&["demo"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for word in ["[CLS]", "cat", "mat", "ms a call", ": ok"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    // Not a terminal: no colours.
    assert!(!text.contains('\u{1b}'));

    // Head 3 of the first layer looks at the word before.
    let summary = json(&["demo", "--head", "3", "--json"]);
    let tokens: Vec<_> = summary["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert_eq!(tokens, ["[CLS]", "the", "cat", "sat", "on", "the", "mat", "[SEP]"]);
    for row in 1..tokens.len() {
        assert_eq!(summary["top"][row][0][0], tokens[row - 1], "row {row}");
    }
    let weights = summary["weights"].as_array().unwrap();
    assert_eq!(weights.len(), 12 * 8 * 8);
    for row in weights.chunks(8) {
        let sum: f64 = row.iter().map(|weight| weight.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
}

#[test]
fn the_demo_writes_pictures() {
    for (head, name) in [("average", "average.png"), ("all", "all.png")] {
        let path = scratch(name);
        let output = attn(&["demo", "--layer", "2", "--head", head, "--png", path.to_str().unwrap()]);
        assert!(output.status.success());
        let picture = image::open(&path).unwrap();
        assert!(picture.width() > 300 && picture.height() > 300);
    }
}

#[test]
fn adapters_are_listed() {
    let list = json(&["adapters", "--json"]);
    let names: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|adapter| adapter["name"].as_str().unwrap().to_owned())
        .collect();
    let found: Vec<_> = wgpu_attention::adapters(None)
        .iter()
        .map(|adapter| adapter.get_info().name)
        .collect();
    assert_eq!(names, found);
    assert!(
        list[0]["properties"]
            .as_array()
            .unwrap()
            .iter()
            .all(|property| property["why"].is_string())
    );
}

#[test]
fn the_bench_checks_and_measures() {
    let path = scratch("lesson.csv");
    let report = json(&[
        "bench",
        "--case",
        "lesson-6",
        "--seconds",
        "0.01",
        "--json",
        "--csv",
        path.to_str().unwrap(),
    ]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(row["right"], true);
        assert!(row["median_ms"].as_f64().unwrap() > 0.0);
    }
    assert!(report["floors"]["gflops"].as_f64().unwrap() > 0.0);
    assert!(report["floors"]["gb_per_s"].as_f64().unwrap() > 0.0);
    // The fused kernel needs nothing besides its operands and a few parameters.
    assert_eq!(rows[0]["kernel"], "fused");
    assert!(rows[0]["extra_bytes"].as_u64().unwrap() < 1 << 20);
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 4);
}

/// Runs `attn shaders` into a folder of its own: the report, and what is in each file that it names.
fn dump(name: &str, options: &[&str]) -> (Value, Vec<(String, Vec<u8>)>) {
    let folder = scratch(name);
    let report = json(&[&["shaders", "--dump", folder.to_str().unwrap(), "--json"], options].concat());
    let names = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap());
    let files: Vec<_> = names
        .map(|name| (name.to_owned(), fs::read(folder.join(name)).unwrap()))
        .collect();
    let bytes: usize = files.iter().map(|(_, contents)| contents.len()).sum();
    assert_eq!(report["bytes"], bytes);
    assert!(report["kernels"].as_u64().unwrap() > 0);
    (report, files)
}

#[test]
fn kernels_are_written_out() {
    let wgsl: &[&str] = &["--combinations", "1", "--format", "wgsl"];
    let [(_, native), (_, web)] = [wgsl, &["--combinations", "1", "--web"]].map(|options| dump(options[2], options));
    assert!(native.len() > 10);
    assert_eq!(native.len(), web.len());
    for (name, contents) in native.iter().chain(&web) {
        let text = std::str::from_utf8(contents).unwrap();
        assert!(name.ends_with(".wgsl"));
        assert!(text.contains("@compute"));
        assert!(!text.contains("/*unroll*/"));
    }
}

/// Each kernel in each format, each file of its format; what a format cannot say would be in the report.
#[test]
fn kernels_are_written_in_other_languages() {
    let (report, files) = dump("languages", &["--combinations", "1"]);
    let refused = report["refused"].as_array().unwrap();
    assert_eq!(
        report["kernels"].as_u64().unwrap() as usize * 4,
        files.len() + refused.len()
    );
    assert!(refused.iter().all(|one| one["why"].is_string()), "{refused:?}");
    // Every language has all that the kernels use today.
    assert_eq!(refused.len(), 0, "{refused:?}");
    for (name, contents) in &files {
        let text = String::from_utf8_lossy(contents);
        let right = match name.rsplit_once('.').unwrap().1 {
            "wgsl" => text.contains("@compute"),
            // Its magic number, and version 1.6.
            "spv" => contents.starts_with(&[3, 2, 0x23, 7, 0, 6, 1, 0]) && contents.len() % 4 == 0,
            "metal" => text.contains("#include <metal_stdlib>") && text.contains("[[buffer(0)]]"),
            "hlsl" => text.contains("[numthreads(") && text.contains(": register(b0)"),
            _ => false,
        };
        assert!(right, "{name}");
        // Indexes are not checked, loops not bounded.
        for words in ["metal::min(unsigned(", "loop_bound"] {
            assert!(!text.contains(words), "{name}: {words}");
        }
    }
}

#[test]
fn kernels_are_written_by_plan() {
    let (_, tuned) = dump("tuned", &["--tuned", "--format", "spirv"]);
    let names: Vec<_> = tuned.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"fused-32x32-resident-d128-causal.spv"), "{names:?}");

    let (_, of_case) = dump("case", &["--case", "causal-1024", "--format", "hlsl"]);
    let names: Vec<_> = of_case.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        names.contains(&"causal-1024-fused-32x32-resident-d64-causal.hlsl"),
        "{names:?}"
    );
    assert!(names.iter().all(|name| name.starts_with("causal-1024-")), "{names:?}");
}

#[test]
fn mistakes_are_explained() {
    refuses(&["demo", "--layer", "1"], &["[0, 2, 4]"]);
    refuses(&["demo", "--head", "13"], &["13", "1 to 12"]);
    refuses(&["demo", "--head", "zero"], &["`all` or `average`"]);
    refuses(
        &["demo", "--adapter", "no such adapter"],
        &["no such adapter", "attn adapters"],
    );
    refuses(&["demo", "--png", "no/such/folder/x.png"], &["no/such/folder"]);
    refuses(&["bench", "--case", "nothing"], &["nothing", "lesson-512"]);
    refuses(&["bench", "--set", "nothing"], &["nothing", "lesson"]);
    refuses(&["bench", "--seconds", "0"], &["expected seconds"]);
    refuses(&["bench", "--cases", "no/such.csv"], &["no/such.csv"]);
    refuses(&["verify"], &["--cases"]);
    refuses(&["shaders"], &["--dump"]);
    refuses(&["shaders", "--dump", "x", "--combinations", "5"], &["1..=4"]);
    refuses(&["shaders", "--dump", "Cargo.toml"], &["Cargo.toml"]);
    refuses(
        &["shaders", "--dump", "x", "--case", "nothing"],
        &["nothing", "lesson-512"],
    );
    refuses(
        &["shaders", "--dump", "x", "--tuned", "--case", "lesson-512"],
        &["--case"],
    );
    refuses(&["shaders", "--dump", "x", "--web", "--format", "hlsl"], &["--format"]);
}

/// The environment chooses the adapter where no option does.
#[test]
fn the_environment_chooses_the_adapter() {
    let demo = |variable: &str, value: &str, options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attn"));
        command
            .args(["demo", "--json"])
            .args(options)
            .env(variable, value)
            .output()
            .unwrap()
    };
    let name = wgpu_attention::adapters(None)[0].get_info().name;
    let part = name[..name.len().min(4)].to_uppercase();
    assert!(demo("WGPU_ADAPTER_NAME", &part, &[]).status.success(), "{part}");
    let nobody = demo("WGPU_ADAPTER_NAME", "no such adapter", &[]);
    assert!(!nobody.status.success());
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no such adapter"));
    // The option wins.
    let option = demo("WGPU_ADAPTER_NAME", "no such adapter", &["--adapter", &name]);
    assert!(option.status.success());
    let elsewhere = if cfg!(windows) { "metal" } else { "dx12" };
    let nowhere = demo("WGPU_BACKEND", elsewhere, &[]);
    assert!(!nowhere.status.success());
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("none found"));
}

/// A file of cases that is none, or that asks for the impossible, is an error and not a panic.
#[test]
fn cases_of_ones_own_are_checked() {
    let header = "name,set,batch,heads,kv_heads,seqlen_q,seqlen_k,head_dim,head_dim_v,causal\n";
    for (name, line, word) in [
        ("heads.csv", "x,y,1,3,2,4,4,8,8,false", "kv_heads"),
        ("zero.csv", "x,y,1,2,2,0,4,8,8,false", "seqlen_q"),
        ("words.csv", "x,y,1,2,2,many,4,8,8,false", "columns"),
    ] {
        let path = scratch(name);
        fs::write(&path, format!("{header}{line}\n")).unwrap();
        refuses(&["bench", "--cases", path.to_str().unwrap()], &[word]);
    }
}

#[test]
fn a_file_is_left_alone_when_the_command_fails() {
    let path = scratch("kept.png");
    fs::write(&path, "mine").unwrap();
    refuses(&["demo", "--layer", "3", "--png", path.to_str().unwrap()], &["layer"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

/// The program with an environment of its own.
fn attn_with(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attn"))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn tuning_is_measured_saved_and_used() {
    let path = scratch("tuning.json");
    let file = path.to_str().unwrap();
    // From a run before.
    let _ = fs::remove_file(&path);
    let tune = ["tune", "--case", "some-64-f32", "--seconds", "2", "--json"];
    let report = json(&[&tune[..], &["--dry-run"]].concat());
    assert!(report["file"].is_null() && !path.exists());
    let report = json(&[&tune[..], &["--file", file]].concat());
    let class = &report["classes"][0];
    let rows = class["rows"].as_array().unwrap();
    assert_eq!(class["class"]["query_rows"], "some");
    assert!(rows[0]["tile"].is_null() && rows[0]["median_ms"].as_f64().unwrap() > 0.0);
    assert!(rows.iter().all(|row| row["right"] == true));
    let saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let choices = saved["choices"].as_array().unwrap();
    assert_eq!(choices.len(), usize::from(!class["chosen"].is_null()));
    if let Some(index) = class["chosen"].as_u64() {
        assert_eq!(choices[0]["tile"], rows[index as usize]["tile"]);
        assert!(choices[0]["median_ms"].as_f64().unwrap() < choices[0]["default_ms"].as_f64().unwrap());
    }

    // It is read; one that makes no sense is ignored with a warning, unless nobody wants any.
    let demo = |tuning: &str, more: &[&str]| {
        let output = attn_with(&[("ATTN_TUNING", tuning)], &[&["demo", "--json"], more].concat());
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(demo(file, &[]), "");
    fs::write(&path, "{}").unwrap();
    let warning = demo(file, &[]);
    assert!(
        warning.contains("tuning.json") && warning.contains("is no tuning"),
        "{warning}"
    );
    assert_eq!(demo(file, &["--no-tuning"]), "");
    assert_eq!(demo("off", &[]), "");
}

#[test]
fn tuning_that_is_interrupted_keeps_the_old_file() {
    let path = scratch("old-tuning.json");
    fs::write(&path, "old").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_attn"))
        .args(["tune", "--file", path.to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none(), "it was to take longer");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");

    refuses(&["tune", "--case", "many-63-f32"], &["many-63-f32", "few-128-f16"]);
    refuses(&["tune", "--seconds", "0"], &["--seconds"]);
    let below = path.join("tuning.json");
    refuses(&["tune", "--file", below.to_str().unwrap()], &["old-tuning.json"]);
}
