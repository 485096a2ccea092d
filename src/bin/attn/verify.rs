//! `attn verify`: the cases of an oracle folder, run and compared.

mod expression;
mod flex;
mod llama;
mod merge;
mod multi_head;
mod onnx;
mod oracle;
mod report;
mod rope;
mod scatter;
mod sdpa;
mod varlen;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use wgpu_attention::reference::{Precision, ReferenceMods};
use wgpu_attention::{Algorithm, AttentionDescriptor, AttentionOutput, Engine, HostInputs, Problem, reference};

use crate::device::{AlgorithmName, DeviceOptions, describe};
use crate::files;
use oracle::{Array, Case, CaseTensors, CaseTolerance, Folder};
use report::{CaseReport, Report};

/// Options of `attn verify`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The oracle folder: manifest.json and its safetensors files
    #[arg(long, value_name = "DIR")]
    cases: PathBuf,
    /// Only this set (may be repeated)
    #[arg(long, value_name = "NAME")]
    set: Vec<String>,
    /// Only cases with this feature tag (may be repeated: any of them)
    #[arg(long, value_name = "TAG")]
    feature: Vec<String>,
    /// Write what was computed: one tensor an expected output, named CASE::ROLE
    #[arg(long, value_name = "FILE.safetensors")]
    dump: Option<PathBuf>,
    /// Which way to compute
    #[arg(long, value_enum, default_value_t = AlgorithmName::Auto)]
    algorithm: AlgorithmName,
    /// Compute on the CPU reference instead of a GPU
    #[arg(long)]
    reference: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// How a case ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "why")]
pub enum Outcome {
    Passed,
    Failed(String),
    Unreadable(String),
    Unsupported(String),
    NeedsWeights,
}

/// What a case computed, by role.
pub type Computed = BTreeMap<&'static str, Array<f32>>;

/// What computes.
pub enum Target {
    Gpu { engine: Engine, algorithm: Algorithm },
    Reference,
}

impl Target {
    /// The way to compute.
    fn algorithm(&self) -> Algorithm {
        match self {
            Target::Gpu { algorithm, .. } => *algorithm,
            Target::Reference => Algorithm::Auto,
        }
    }

    fn attention(
        &self,
        descriptor: &AttentionDescriptor<'_>,
        inputs: &HostInputs<'_>,
    ) -> wgpu_attention::Result<AttentionOutput> {
        self.attention_with(descriptor, inputs, &ReferenceMods::default())
    }

    /// With the functions of the descriptor's mods once more, for the reference.
    fn attention_with(
        &self,
        descriptor: &AttentionDescriptor<'_>,
        inputs: &HostInputs<'_>,
        mods: &ReferenceMods<'_>,
    ) -> wgpu_attention::Result<AttentionOutput> {
        match self {
            Target::Gpu { engine, .. } => engine.attention(descriptor, inputs),
            Target::Reference => {
                let problem = Problem::new(descriptor)?;
                let result = reference::attention_with(Precision::F64, &problem, inputs, mods)?;
                let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<_>>();
                let weights = descriptor.outputs.weights.then(|| single(result.weights));
                let scores = descriptor.outputs.scores.map(|_| single(result.scores));
                Ok(AttentionOutput {
                    out: single(result.out),
                    lse: Some(single(result.lse)),
                    weights,
                    scores,
                })
            }
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(dump) = &arguments.dump {
        files::check_writable(dump)?;
    }
    let (mut folder, manifest) = Folder::open(&arguments.cases)?;
    let cases = select(&manifest.cases, arguments)?;
    let target = if arguments.reference {
        Target::Reference
    } else {
        Target::Gpu {
            engine: arguments.device.engine()?,
            algorithm: arguments.algorithm.into(),
        }
    };
    let device = match &target {
        Target::Gpu { engine, .. } => describe(engine),
        Target::Reference => "CPU reference".into(),
    };
    let mut report = Report {
        device,
        ..Report::default()
    };
    let mut dumped = BTreeMap::new();
    let progress = indicatif::ProgressBar::new(cases.len() as u64);
    for case in cases {
        progress.set_message(case.name.clone());
        let (case_report, computed) = run_case(&mut folder, case, &target);
        report.add(case_report);
        for (role, array) in computed {
            if case.outputs.contains_key(role) {
                dumped.insert(format!("{}::{role}", case.name), array);
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    if let Some(path) = &arguments.dump {
        files::write_whole(path, &serialize(&dumped)?)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    let good = report.total.is_good() && report.optional.unreadable == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn select<'a>(cases: &'a [Case], arguments: &Arguments) -> anyhow::Result<Vec<&'a Case>> {
    for set in &arguments.set {
        let known = cases.iter().any(|case| case.set == *set);
        anyhow::ensure!(
            known,
            "no set {set:?}; there are {}",
            list(cases.iter().map(|case| &case.set))
        );
    }
    for feature in &arguments.feature {
        let known = cases.iter().any(|case| case.features.contains(feature));
        let features = || list(cases.iter().flat_map(|case| &case.features));
        anyhow::ensure!(known, "no feature {feature:?}; there are {}", features());
    }
    let selected: Vec<_> = cases
        .iter()
        .filter(|case| arguments.set.is_empty() || arguments.set.contains(&case.set))
        .filter(|case| {
            arguments.feature.is_empty() || case.features.iter().any(|feature| arguments.feature.contains(feature))
        })
        .collect();
    anyhow::ensure!(!selected.is_empty(), "no case is left to run");
    Ok(selected)
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: std::collections::BTreeSet<&str> = names.map(String::as_str).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn run_case(folder: &mut Folder, case: &Case, target: &Target) -> (CaseReport, Computed) {
    let mut report = CaseReport {
        name: case.name.clone(),
        set: case.set.clone(),
        optional: case.optional,
        outcome: Outcome::Passed,
        share_of_tolerance: BTreeMap::new(),
        outputs_unsupported: Vec::new(),
        features: case.features.clone(),
    };
    let result = folder.tensors(case).and_then(|tensors| {
        let computed = match compute(&tensors, target)? {
            Ok(computed) => computed,
            Err(outcome) => {
                report.outcome = outcome;
                return Ok(Computed::new());
            }
        };
        compare_case(&tensors, &computed, &mut report)?;
        Ok(computed)
    });
    match result {
        Ok(computed) => (report, computed),
        Err(error) => {
            // The library's own refusal of a readable case is a failure of ours, not of the file.
            report.outcome = match error.downcast_ref::<wgpu_attention::Error>() {
                Some(_) => Outcome::Failed(format!("{error:#}")),
                None => Outcome::Unreadable(format!("{error:#}")),
            };
            (report, Computed::new())
        }
    }
}

fn compute(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Result<Computed, Outcome>> {
    match tensors.case.op.as_str() {
        "sdpa" => sdpa::run(tensors, target).map(Ok),
        "flex" => flex::run(tensors, target).map(Ok),
        "onnx.FlexAttention" => flex::run_onnx(tensors, target).map(Ok),
        "onnx.Attention" => onnx::run(tensors, target).map(Ok),
        "varlen" => varlen::run(tensors, target).map(Ok),
        "mha_module" => multi_head::run_module(tensors, target).map(Ok),
        "merge_states" => merge::run(tensors, target).map(Ok),
        "onnx.RotaryEmbedding" => rope::run_onnx(tensors, target).map(Ok),
        "rope" => rope::run(tensors, target).map(Ok),
        "rope_causal_gqa" => llama::run_attention(tensors, target).map(Ok),
        "llama_attention_block" => llama::run_block(tensors, target).map(Ok),
        "onnx.TensorScatter" => scatter::run(tensors, target).map(Ok),
        "self_attention_layer" => multi_head::run_layer(tensors, target),
        "greedy_generation" | "sentence_embedding" => Ok(Err(Outcome::NeedsWeights)),
        op => Ok(Err(Outcome::Unsupported(format!("operator {op}")))),
    }
}

/// Compares every expected output that was computed. Gradients are not computed yet; any other output must be there.
fn compare_case(tensors: &CaseTensors<'_>, computed: &Computed, report: &mut CaseReport) -> anyhow::Result<()> {
    let case = tensors.case;
    for role in case.outputs.keys() {
        let Some(got) = computed.get(role.as_str()) else {
            if is_gradient(role) || is_gradient_of_input(case, role) {
                report.outputs_unsupported.push(role.clone());
                continue;
            }
            anyhow::bail!("unknown output {role}");
        };
        let want = tensors.expected(role)?;
        let tolerance = *case.tol.get(role).with_context(|| format!("no tolerance for {role}"))?;
        match compare(got, &want, tolerance) {
            Ok(share) => {
                report.share_of_tolerance.insert(role.clone(), share);
            }
            Err(why) => report.outcome = Outcome::Failed(format!("{role}: {why}")),
        }
    }
    Ok(())
}

fn is_gradient(role: &str) -> bool {
    role.starts_with("d_") || matches!(role, "dq" | "dk" | "dv" | "dmask" | "dsinks")
}

/// `d` and an input's role: the gradient of what a function captured.
fn is_gradient_of_input(case: &Case, role: &str) -> bool {
    role.strip_prefix('d')
        .is_some_and(|input| case.inputs.contains_key(input))
}

/// By the folder's rule: equal, both NaN, or finite and within the tolerance. Returns the largest share of it used.
fn compare(got: &Array<f32>, want: &Array<f64>, tolerance: CaseTolerance) -> Result<f64, String> {
    if got.shape != want.shape || got.data.len() != want.data.len() {
        return Err(format!("shape {:?}, expected {:?}", got.shape, want.shape));
    }
    let mut largest = 0.0f64;
    let mut wrong = 0;
    let mut worst = String::new();
    for (index, (&got, &want)) in got.data.iter().zip(&want.data).enumerate() {
        let got = f64::from(got);
        if got == want || (got.is_nan() && want.is_nan()) {
            continue;
        }
        let bound = tolerance.atol + tolerance.rtol * want.abs();
        let difference = (got - want).abs();
        // NaN compares false, so it lands with what is wrong.
        if got.is_finite() && want.is_finite() && difference <= bound {
            largest = largest.max(difference / bound);
            continue;
        }
        wrong += 1;
        let share = difference / bound;
        if worst.is_empty() || share > largest {
            worst = format!("element {index} is {got:e}, expected {want:e} within {bound:.1e}");
            largest = largest.max(share);
        }
    }
    match wrong {
        0 => Ok(largest),
        _ => Err(format!("{wrong} of {} elements wrong; {worst}", got.data.len())),
    }
}

fn serialize(arrays: &BTreeMap<String, Array<f32>>) -> anyhow::Result<Vec<u8>> {
    let views = arrays.iter().map(|(name, array)| {
        let shape = array.shape.iter().map(|&size| size as usize).collect();
        Ok((
            name.as_str(),
            TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&array.data))?,
        ))
    });
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize(views, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array<T>(data: Vec<T>) -> Array<T> {
        Array {
            shape: vec![data.len() as u32],
            data,
        }
    }

    #[test]
    fn the_comparison_catches_what_is_wrong() {
        let tolerance = CaseTolerance { atol: 1e-6, rtol: 0.0 };
        let want = array(vec![1.0, f64::NEG_INFINITY, f64::NAN]);
        let right = vec![1.0, f32::NEG_INFINITY, f32::NAN];
        assert!(compare(&array(right.clone()), &want, tolerance).is_ok());
        for (index, value) in [
            (0, f32::NAN),
            (0, 1.001),
            (0, f32::INFINITY),
            (1, f32::INFINITY),
            (1, f32::NAN),
            (2, 0.0),
        ] {
            let mut wrong = right.clone();
            wrong[index] = value;
            assert!(compare(&array(wrong), &want, tolerance).is_err(), "{value} at {index}");
        }
        assert!(compare(&array(vec![1.0]), &want, tolerance).is_err());
        assert!(
            compare(
                &array(right),
                &want,
                CaseTolerance {
                    atol: f64::NAN,
                    rtol: 0.0
                }
            )
            .is_ok_and(|share| share == 0.0)
        );
        let nan_bound = CaseTolerance {
            atol: f64::NAN,
            rtol: 0.0,
        };
        assert!(compare(&array(vec![1.5]), &array(vec![1.0]), nan_bound).is_err());
    }
}
