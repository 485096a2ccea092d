//! What features cost beside plain attention on this machine: `cargo run --release --example cost_of_features [TOKENS]`.
//!
//! Each is prepared and run once, which is its first call; then all run in turn, round after round, so that a busy machine slows all alike.

use std::process::ExitCode;
use std::time::Instant;

use wgpu_attention::{
    AttentionDescriptor, AttentionShape, BoundAttention, Broadcast, CausalAlignment, Dropout, DropoutKeep, Engine,
    Inputs, KeyPadding, Mods, OutputBuffers, Result, Window,
};

const ROUNDS: usize = 9;
/// With more, a bias for each head were gigabytes.
const MAX_TOKENS: u32 = 8192;
const HEADS: u32 = 8;
const CAUSAL: Option<CausalAlignment> = Some(CausalAlignment::LowerRight);
const SCORE_MOD: &str = "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return score * 0.9 - 0.01 * f32(q_idx - kv_idx);
}";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let tokens = match std::env::args().nth(1) {
        None => 1024,
        Some(text) => match text.parse() {
            Ok(tokens @ 1..=MAX_TOKENS) => tokens,
            _ => return Err(format!("expected a number of tokens, 1 to {MAX_TOKENS}, not {text:?}").into()),
        },
    };
    let engine = Engine::new()?;
    println!("on {}, {HEADS} heads, {tokens} tokens, 64 channels", engine.caps().name);
    let plain = AttentionDescriptor {
        shape: AttentionShape::new(1, HEADS, tokens, tokens, 64),
        ..Default::default()
    };
    let window = Window {
        left: Some(tokens / 4),
        right: Some(0),
        alignment: CausalAlignment::LowerRight,
    };
    let score_mod = Mods {
        score_mod: Some(SCORE_MOD),
        ..Default::default()
    };
    let dropout = Dropout {
        probability: 0.1,
        keep: DropoutKeep::Philox { seed: 1, offset: 0 },
    };
    let with = |change: &dyn Fn(&mut AttentionDescriptor<'_>)| {
        let mut descriptor = plain.clone();
        change(&mut descriptor);
        descriptor
    };
    let features = [
        ("plain", plain.clone()),
        ("causal", with(&|feature| feature.causal = CAUSAL)),
        (
            "causal, window of a quarter",
            with(&|feature| feature.window = Some(window)),
        ),
        ("score_mod", with(&|feature| feature.mods = score_mod)),
        (
            "score_mod, causal",
            with(&|feature| (feature.mods, feature.causal) = (score_mod, CAUSAL)),
        ),
        ("softcap", with(&|feature| feature.softcap = Some(30.0))),
        (
            "ALiBi, causal",
            with(&|feature| (feature.alibi_slopes, feature.causal) = (true, CAUSAL)),
        ),
        (
            "boolean mask",
            with(&|feature| feature.mask = Some(Broadcast::new([1, 1, tokens, tokens]))),
        ),
        (
            "bias, one for all heads",
            with(&|feature| feature.bias = Some(Broadcast::new([1, 1, tokens, tokens]))),
        ),
        (
            "bias a head",
            with(&|feature| feature.bias = Some(Broadcast::new([1, HEADS, tokens, tokens]))),
        ),
        (
            "key padding",
            with(&|feature| feature.key_padding = Some(KeyPadding::Boolean)),
        ),
        ("dropout", with(&|feature| feature.dropout = Some(dropout))),
    ];
    let mut calls = Vec::new();
    for (name, descriptor) in &features {
        let began = Instant::now();
        let bound = bind(&engine, descriptor)?;
        let first = measure(&engine, &bound)?;
        let preparing = began.elapsed().as_secs_f64() - first;
        calls.push((name, bound, preparing + first, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, bound, _, times) in &mut calls {
            times.push(measure(&engine, bound)?);
        }
    }
    println!("{:<30}{:>10}{:>10}{:>15}", "", "ms", "of plain", "first call, s");
    let mut of_plain = None;
    for (name, _, first, times) in &mut calls {
        times.sort_by(f64::total_cmp);
        let median = times[ROUNDS / 2];
        let plain = *of_plain.get_or_insert(median);
        println!("{name:<30}{:>10.2}{:>10.2}{first:>15.2}", 1e3 * median, median / plain);
    }
    println!(
        "\nms: medians of {ROUNDS} calls in turn; of plain: how many times as long; first call: with preparing, which is short where"
    );
    println!(
        "the driver, or a row before, has compiled the same kernel. Little differs where calls are shorter than a submission."
    );
    Ok(())
}

/// Seconds of one call.
fn measure(engine: &Engine, bound: &BoundAttention) -> Result<f64> {
    let began = Instant::now();
    engine.run(bound)?;
    engine.wait()?;
    Ok(began.elapsed().as_secs_f64())
}

/// The call with operands of its own: random numbers, every third position closed where a mask says so.
fn bind(engine: &Engine, descriptor: &AttentionDescriptor<'_>) -> Result<BoundAttention> {
    let AttentionShape {
        heads,
        seqlen_q,
        seqlen_k,
        head_dim,
        ..
    } = descriptor.shape;
    let numbers = |count: u32| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.37).sin()).collect() };
    let x = engine.upload(&numbers(heads * seqlen_q * head_dim))?;
    let bytes: Vec<u8> = (0..seqlen_q * seqlen_k).map(|i| u8::from(i % 3 != 0)).collect();
    let out = engine.allocate(u64::from(heads * seqlen_q * head_dim) * 4)?;
    let mask = descriptor.mask.map(|_| engine.upload_bytes(&bytes)).transpose()?;
    let padding = descriptor
        .key_padding
        .map(|_| engine.upload_bytes(&bytes[..seqlen_k as usize]))
        .transpose()?;
    let slopes = descriptor
        .alibi_slopes
        .then(|| engine.upload(&numbers(heads)))
        .transpose()?;
    let bias = match descriptor.bias {
        Some(_) => Some(engine.upload(&numbers(heads * seqlen_q * seqlen_k))?),
        None => None,
    };
    let inputs = Inputs {
        mask: mask.as_ref().map(Into::into),
        bias: bias.as_ref().map(Into::into),
        key_padding: padding.as_ref().map(Into::into),
        alibi_slopes: slopes.as_ref().map(Into::into),
        ..Inputs::new(&x, &x, &x)
    };
    engine.prepare(descriptor)?.bind(&inputs, &OutputBuffers::new(&out))
}
