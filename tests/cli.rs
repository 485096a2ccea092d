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

/// A family that the device cannot have is no silent choice of another.
#[test]
fn a_family_without_effect_is_said() {
    let cases = ["verify", "--cases", "tests/oracles", "--feature", "len1"];
    let warns = |options: &[&str]| {
        let output = attn(&[&cases[..], options].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("so --family leaves the tile family")
    };
    assert!(warns(&["--family", "matrix", "--no-matrix"]));
    assert!(warns(&["--family", "broadcast", "--no-subgroups"]));
    assert!(!warns(&["--family", "tile", "--no-matrix"]));
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

/// A folder of engines that are shell scripts, each a file and a script.
#[cfg(unix)]
fn fake_engines(name: &str, engines: &[(&str, &str)]) -> PathBuf {
    let folder = scratch(name);
    fs::create_dir_all(&folder).unwrap();
    for (engine, script) in engines {
        fs::write(folder.join(format!("{engine}.sh")), script).unwrap();
        let file = format!(
            "name = \"{engine}\"\nversion = \"0.1\"\nruns_on = \"gpu\"\ncommand = [\"sh\", \"{engine}.sh\"]\n\
             build = \"nothing\"\nknown = \"a script\"\n[env]\nFAKE = \"from the file\"\n"
        );
        fs::write(folder.join(format!("{engine}.toml")), file).unwrap();
    }
    folder
}

/// What others print decides what is shown of them: nothing of it is a panic, and a wrong result has no ratio.
#[cfg(unix)]
#[test]
fn peers_are_right_wrong_malformed_or_hang() {
    let folder = fake_engines(
        "engines",
        &[
            (
                "right",
                r#"echo loading; echo '{"case":"'"${ATTN_CASE%%,*}"'","variant":"'"$ATTN_CASE|$FAKE"'","version":"7","median_ms":1e9,"min_ms":9e8,"runs":5,"max_abs_err":"1e-9"}'"#,
            ),
            (
                "wrong",
                r#"echo '{"case":"lesson-6","median_ms":0.001,"max_abs_err":"0.5"}'; echo '{"case":"lesson-6","variant":"b","median_ms":0.001,"max_abs_err":"nan"}'"#,
            ),
            ("malformed", r#"echo '{"case":"lesson-6","median_ms":'"#),
            ("silent", "echo only words; echo out of memory >&2"),
            ("fails", r#"echo '{"case":"lesson-6","skip":"too small"}'; exit 3"#),
            ("hangs", "echo compiling >&2; sleep 100 & sleep 100"),
        ],
    );
    fs::write(
        folder.join("absent.toml"),
        "name = \"absent\"\nversion = \"1\"\nruns_on = \"cpu\"\ncommand = [\"./absent\"]\nbuild = \"make it\"\n",
    )
    .unwrap();
    let folder = folder.to_str().unwrap();
    let (csv, html) = (scratch("peers.csv"), scratch("peers.html"));
    let options = [
        "--engines",
        folder,
        "--case",
        "lesson-6",
        "--seconds",
        "0.01",
        "--peer-limit",
        "1",
    ];
    let files = ["--csv", csv.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let start = std::time::Instant::now();
    let report = json(&[&["bench", "--peers", "--json"], &options[..], &files].concat());
    assert!(start.elapsed().as_secs() < 90);

    let records = report["records"].as_array().unwrap();
    let of = |engine: &str| -> Vec<&Value> { records.iter().filter(|record| record["engine"] == engine).collect() };
    let ours = of("wgpu-attention")[0];
    assert_eq!((&ours["status"], &ours["case"]), (&"right".into(), &"lesson-6".into()));
    let our_ms = ours["median_ms"].as_f64().unwrap();
    assert!(our_ms > 0.0);

    // The process was given the case as a line of the file, and its own variables.
    let right = of("right")[0];
    assert_eq!(right["variant"], "lesson-6,lesson,1,8,8,6,6,64,64,false|from the file");
    assert_eq!((&right["status"], &right["version"]), (&"right".into(), &"7".into()));
    let ratio = right["ours_over_this"].as_f64().unwrap();
    assert!((ratio / (right["ours_ms"].as_f64().unwrap() / 1e9) - 1.0).abs() < 1e-2);

    assert_eq!(of("wrong").len(), 2);
    for wrong in of("wrong") {
        assert_eq!(wrong["status"], "wrong");
        assert_eq!(wrong["median_ms"], 0.001);
        assert!(wrong["ours_over_this"].is_null());
    }
    for (engine, words) in [
        ("malformed", &["not a line of results"][..]),
        ("silent", &["no line of results", "out of memory"]),
        ("hangs", &["1 s", "compiling"]),
    ] {
        let [record] = of(engine)[..] else {
            panic!("{engine}: {records:?}")
        };
        assert_eq!(record["status"], "failed");
        for word in words {
            assert!(record["message"].as_str().unwrap().contains(word), "{record}");
        }
    }
    // Answers before a failure count.
    let statuses: Vec<_> = of("fails").iter().map(|record| record["status"].clone()).collect();
    assert_eq!(statuses, ["skipped", "failed"]);
    assert_eq!(report["skipped"][0]["engine"], "absent");
    assert!(report["skipped"][0]["why"].as_str().unwrap().contains("make it"));

    // What was written can be shown again.
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), records.len() + 1);
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("class=\"roof\"") && page.contains("not a line of results") && !page.contains("://"));
    fs::remove_file(&html).unwrap();
    let output = attn(&[&["bench", "--record", csv.to_str().unwrap()], &files[2..]].concat());
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    assert!(
        table.contains("| **wgpu-attention as planned") && table.contains("| wrong |"),
        "{table}"
    );
    assert_eq!(fs::read_to_string(&html).unwrap(), page);
}

#[cfg(unix)]
#[test]
fn peers_are_shown_in_a_table() {
    let line = r#"echo '{"case":"lesson-6","median_ms":0.001,"max_abs_err":"0.5"}'"#;
    let folder = fake_engines("engines-table", &[("wrong", line)]);
    let folder = folder.to_str().unwrap();
    let csv = scratch("table.csv");
    let csv = csv.to_str().unwrap();
    let options = ["--case", "lesson-6", "--seconds", "0.01", "--csv", csv];
    let output = attn(&[&["bench", "--peers", "--engines", folder], &options[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    // What others get wrong is no failure of ours.
    assert!(output.status.success());
    let row = text.lines().find(|line| line.contains("(0.001)")).unwrap();
    assert!(row.contains("wrong") && row.contains("WRONG"), "{text}");
    assert!(text.contains("wrong: a script"), "{text}");
    // A document with this table, and with one where a number was changed.
    let output = attn(&["bench", "--record", csv]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let document = |table: &str| format!("text\n<!-- attn bench --record {csv} -->\n{table}<!-- end -->\n");
    assert_eq!(stale_tables(&document(&table)), [""; 0]);
    assert_eq!(stale_tables(&document(&table.replace("wrong", "0.001"))), [csv]);
}

#[test]
fn the_bench_draws_a_page() {
    let path = scratch("bench.html");
    let options = [
        "--kernel",
        "auto",
        "--kernel",
        "fused",
        "--seconds",
        "0.01",
        "--html",
        path.to_str().unwrap(),
    ];
    let output = attn(&[&["bench", "--case", "seqlen-64", "--case", "seqlen-256"], &options[..]].concat());
    assert!(output.status.success());
    let page = fs::read_to_string(path).unwrap();
    // Two kernels on two cases, on the roofline and over the length.
    assert_eq!(page.matches("<circle").count(), 8);
    assert!(page.contains("as planned") && page.contains("fused") && !page.contains("://"));
}

/// The records whose tables in a document are not what `attn bench --record` prints.
fn stale_tables(text: &str) -> Vec<&str> {
    let mut stale = Vec::new();
    for part in text.split("\n<!-- attn bench --record ").skip(1) {
        let (record, rest) = part.split_once(" -->\n").unwrap();
        let (table, _) = rest.split_once("<!-- end -->").unwrap();
        let output = attn(&["bench", "--record", record]);
        if !output.status.success() || table.trim() != String::from_utf8_lossy(&output.stdout).trim() {
            stale.push(record);
        }
    }
    stale
}

#[test]
fn tables_in_the_documents_are_the_records() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["README.md", "benches/README.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        assert_eq!(stale_tables(&text), [""; 0], "{document}");
    }
}

#[test]
fn kernels_are_written_out() {
    let wgsl: &[&str] = &["--combinations", "1", "--format", "wgsl"];
    let [(_, native), (_, web)] = [wgsl, &["--combinations", "1", "--web"]].map(|options| dump(options[2], options));
    // Some use what only naga has.
    assert!(web.len() > 10 && web.len() < native.len());
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
    // Every language has all that the kernels use today, but HLSL no products of matrices.
    let is_matrix = |one: &serde_json::Value| {
        one["format"] == "hlsl" && one["kernel"].as_str().is_some_and(|name| name.starts_with("matrix"))
    };
    assert!(refused.iter().all(is_matrix), "{refused:?}");
    let matrices = (files.iter()).filter(|(name, _)| name.starts_with("matrix") && name.ends_with(".spv"));
    assert_eq!(refused.len(), matrices.count());
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
    refuses(
        &["bench", "--record", "benches/cases.csv"],
        &["cases.csv", "--peers --csv"],
    );
    refuses(&["bench", "--peers", "--engines", "no/such"], &["no/such"]);
    refuses(&["bench", "--peers", "--peer", "nobody"], &["nobody", "burn"]);
    refuses(&["bench", "--peers", "--peer-limit", "0"], &["expected seconds"]);
    refuses(&["bench", "--html", "no/such/folder/x.html"], &["no/such/folder"]);
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

/// A few seconds of random requests; and one of them once more, by its number.
#[test]
fn random_requests_end_well() {
    let report = json(&["fuzz", "--seed", "3", "--first", "980", "--cases", "60", "--json"]);
    assert_eq!(report["failed"], 0, "{report:#}");
    assert_eq!(report["cases"], 60);
    let answers = report["answers"].as_u64().unwrap();
    let errors: u64 = (report["errors"].as_object().unwrap().values())
        .map(|count| count.as_u64().unwrap())
        .sum();
    let others = report["unchecked"].as_u64().unwrap() + report["planned"].as_u64().unwrap();
    assert!(answers > 15 && errors > 10, "{report:#}");
    assert_eq!(answers + errors + others, 60);

    let worst = report["largest_error_case"].to_string();
    let again = json(&["fuzz", "--seed", "3", "--first", &worst, "--cases", "1", "--json"]);
    assert_eq!(again["largest_error"], report["largest_error"]);

    let output = attn(&["fuzz", "--seed", "3", "--first", &worst, "--cases", "1", "--verbose"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in ["AttentionShape", "1 right answers", "0 failed"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
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

#[test]
fn an_unknown_backend_is_named() {
    for arguments in [&["adapters"][..], &["bench", "--case", "lesson-128"]] {
        let output = attn_with(&[("WGPU_BACKEND", "foo")], arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(
            message.contains("WGPU_BACKEND=foo") && message.contains("vulkan"),
            "{message}"
        );
        assert!(!message.contains("panicked"), "{message}");
    }
    let empty_is_unset = attn_with(&[("WGPU_BACKEND", "")], &["adapters"]);
    assert!(empty_is_unset.status.success());
}

/// As `attn … | head -0` has it.
#[cfg(unix)]
#[test]
fn output_that_nobody_reads_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_attn"))
        .args(["adapters"])
        .stdout(writer)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!message.contains("panicked"), "{message}");
}
