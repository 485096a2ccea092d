//! Fused attention of the crate ferrotensor-backend: WGSL written by hand, on wgpu 0.19.

use attn_common::{Answer, Case, measure, swap};
use ferrotensor_backend::{AttentionOptions, ComputeEngine, UnifiedTensor, WgpuContext, wgpu};

fn main() {
    let case = Case::from_env();
    let inputs = case.inputs();
    let expected = case.reference(&inputs, "f32");
    let context = pollster::block_on(WgpuContext::new_with_options(
        wgpu::PowerPreference::HighPerformance,
        false,
    ));
    let adapter = context.adapter_info().to_string();
    let engine = ComputeEngine::new(&context);
    // Its layout is [batch, seqlen, heads, head_dim].
    let load = |values: &[f32], shape: [usize; 4]| {
        let [batch, heads, seqlen, dim] = shape;
        UnifiedTensor::new(&context, &swap(values, shape), &[batch, seqlen, heads, dim])
    };
    let q = load(&inputs.q, case.q_shape());
    let k = load(&inputs.k, case.kv_shape());
    let v = load(&inputs.v, case.kv_shape());
    let shape = [case.batch, case.seqlen_q, case.heads, case.head_dim];
    let out = UnifiedTensor::empty(&context, &shape);
    context.synchronize();
    let options = AttentionOptions {
        causal: case.causal,
        causal_offset: (case.seqlen_k - case.seqlen_q) as u32,
        ..Default::default()
    };
    let answer = Answer {
        engine: "ferrotensor",
        version: "0.5.0",
        variant: "flash_attention_v2",
        adapter: &adapter,
        dtype: "f32",
    };
    answer.guard(&case, || {
        let run = || {
            engine.flash_attention_v2_with(&context, &q, &k, &v, &out, &options, None);
            context.synchronize();
        };
        measure(&expected, run, |()| {
            swap(&pollster::block_on(out.to_vec(&context)), shape)
        })
    });
}
