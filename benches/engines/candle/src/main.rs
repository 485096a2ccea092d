//! Attention through candle on the CPU (it has no wgpu or Vulkan backend): its flash attention for the CPU.

use attn_common::{Answer, Case, measure};
use candle_core::{Device, Result, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};

fn main() -> Result<()> {
    let case = Case::from_env();
    let inputs = case.inputs();
    let expected = case.reference(&inputs, "f32");
    // Its layout is [batch, seqlen, heads, head_dim].
    let load = |values: &[f32], shape: [usize; 4]| -> Result<Tensor> {
        Tensor::from_slice(values, &shape, &Device::Cpu)?
            .transpose(1, 2)?
            .contiguous()
    };
    let q = load(&inputs.q, case.q_shape())?;
    let k = load(&inputs.k, case.kv_shape())?;
    let v = load(&inputs.v, case.kv_shape())?;
    let answer = Answer {
        engine: "candle",
        version: "0.11.1",
        variant: "flash",
        adapter: "CPU",
        dtype: "f32",
    };
    answer.guard(&case, || {
        let run = || {
            let mask = if case.causal {
                AttnMask::causal()
            } else {
                AttnMask::None
            };
            flash_attn::<f32>(&q, &k, &v, case.scale(), mask, None, None).unwrap()
        };
        let fetch = |out: Tensor| out.contiguous().and_then(|out| out.flatten_all()?.to_vec1()).unwrap();
        measure(&expected, run, fetch)
    });
    Ok(())
}
