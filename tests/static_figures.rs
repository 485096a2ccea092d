//! The tables of static figures in `benches/static` are of the kernels as they are, and no kernel is worse than its row.
#![cfg(feature = "cli")]
#![allow(unreachable_pub, reason = "modules of a program")]

#[path = "../tools/gpu-static/digest.rs"]
mod digest;
#[path = "../tools/gpu-static/figures.rs"]
mod figures;

use std::fs;
use std::path::Path;
use std::process::Command;

use digest::digest;
use figures::{FIGURES, Row, Table};
use wgpu_attention::kernel::catalog::{self, Named};
use wgpu_attention::kernel::source::{self, Dialect, Unroll};

/// The GPUs that there are tables for.
const GPUS: [&str; 3] = ["navi31", "navi21", "vega10"];

const REFRESH: &str = "`tools/gpu-static.sh` refreshes the tables, and says what got worse";

/// Needs no driver: the digest of a row is that of its kernel's text.
#[test]
fn every_tuned_kernel_has_its_row() {
    has_rows("benches/static", &GPUS, &catalog::tuned().unwrap());
}

/// Of these GPUs one has units for matrices.
#[test]
fn every_matrix_kernel_has_its_row() {
    has_rows(
        "benches/static/matrix",
        &["navi31"],
        &catalog::tuned_matrices().unwrap(),
    );
}

fn has_rows(folder: &str, gpus: &[&str], tuned: &[Named]) {
    let texts: Vec<_> = tuned
        .iter()
        .map(|named| source::compose(&named.kernel, Unroll::Expanded, Dialect::Native).unwrap())
        .collect();
    let mut wrong = Vec::new();
    for gpu in gpus {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{folder}/{gpu}.csv"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; {REFRESH}", path.display()));
        let table = Table::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert!(!table.driver.is_empty(), "{gpu}: of no driver");
        for (named, text) in tuned.iter().zip(&texts) {
            match table.row(&named.name) {
                None => wrong.push(format!("{gpu}: {} has no row", named.name)),
                Some(row) if row.text != digest(text) => {
                    wrong.push(format!("{gpu}: the row of {} is of another text", named.name));
                }
                Some(_) => {}
            }
        }
        let gone = |kernel: &str| !tuned.iter().any(|named| named.name == kernel);
        let gone = table.rows.iter().filter(|row| gone(&row.kernel));
        wrong.extend(gone.map(|row| format!("{gpu}: there is no kernel {}", row.kernel)));
    }
    assert!(wrong.is_empty(), "{}\n{REFRESH}", wrong.join("\n"));
}

fn figure(row: &Row, name: &str) -> f64 {
    let index = FIGURES.iter().position(|figure| figure.name == name);
    row.figures[index.unwrap_or_else(|| panic!("no column {name}"))]
}

/// The matrix family is to multiply matrices: in the loop over open tiles one instruction in 20 with heads of 128 channels; with 64, whose
/// tiles have half as many products and as much around them, one in 24.
#[test]
fn matrix_kernels_multiply_matrices() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/static/matrix/navi31.csv");
    let table = Table::parse(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(table.rows.len() >= 4, "{} rows", table.rows.len());
    for row in &table.rows {
        let least = if row.kernel.contains("-d128") { 0.05 } else { 0.0416 };
        let share = figure(row, "multiply_adds_of_all");
        assert!(share >= least, "{}: {share}", row.kernel);
        for none in ["spilled_vgprs", "spilled_sgprs", "scratch_bytes"] {
            assert_eq!(figure(row, none), 0.0, "{}: {none}", row.kernel);
        }
    }
}

/// What the tile family is to be on RDNA: everything in registers, a main loop of little but multiply-adds, and no vec4 that comes from
/// workgroup memory in pieces; with `f16` storage in less workgroup memory than with `f32`, and no fewer subgroups side by side.
#[test]
fn fused_tiles_are_multiply_adds() {
    for (gpu, least_of_vector) in [("navi31", 0.88), ("navi21", 0.87)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/static/{gpu}.csv"));
        let table = Table::parse(&fs::read_to_string(path).unwrap()).unwrap();
        let rows: Vec<_> = table
            .rows
            .iter()
            .filter(|row| row.kernel.starts_with("fused-32x32"))
            .collect();
        assert!(rows.len() >= 12, "{gpu}: {} rows", rows.len());
        for row in &rows {
            let at = format!("{gpu}: {}", row.kernel);
            for none in [
                "spilled_vgprs",
                "spilled_sgprs",
                "scratch_bytes",
                "loop_lds_loads_of_4_bytes",
            ] {
                assert_eq!(figure(row, none), 0.0, "{at}: {none}");
            }
            for (share, least) in [
                ("multiply_adds_of_vector", least_of_vector),
                ("multiply_adds_of_all", 0.65),
            ] {
                assert!(figure(row, share) >= least, "{at}: {share} is {}", figure(row, share));
            }
            // Only where shaders have f16: on the portable tier it lies in workgroup memory as f32.
            let half = row.kernel.strip_suffix("-f16").filter(|half| half.contains("resident"));
            let Some(half) = half else { continue };
            let Some(single) = table.row(half) else {
                panic!("{at} without {half}")
            };
            let [is, was] = [row, single].map(|row| figure(row, "workgroup_bytes"));
            assert!(is < 0.7 * was, "{at}: {is} bytes, {was} of f32");
            let [is, was] = [row, single].map(|row| figure(row, "waves_per_simd"));
            assert!(is >= was, "{at}: {is} waves, {was} of f32");
        }
    }
}

/// Compiles every tuned kernel, where RADV is at hand; says "skipped" where it is not.
#[cfg(target_os = "linux")]
#[test]
fn no_kernel_is_worse_than_its_row() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/gpu-static.sh");
    let output = Command::new("sh").arg(script).arg("--check").output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{}", text.concat());
    assert!(output.status.success(), "{}\n{REFRESH}", text.concat());
    // Either every GPU was compiled for, or it says why not.
    let skipped = text.concat().contains("skipped");
    for gpu in GPUS {
        assert!(
            skipped || text[0].contains(&format!("{gpu}: ")),
            "nothing of {gpu}: {}",
            text.concat()
        );
    }
}
