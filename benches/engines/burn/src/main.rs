//! Attention through burn: its public `attention` (autotuned), the composition that a user would write, and on wgpu cubek's
//! flash attention past the tuner. One argument: `wgpu` or `flex`, its backend on the CPU.

use attn_common::{Answer, Case, Inputs, measure, wanted};
use burn::tensor::{Bool, Device, Tensor, TensorData, activation::softmax, module};
use burn_backend::ops::{AttentionModuleOptions, FloatTensorOps};
use burn_cubecl::{
    CubeBackend, CubeDevice,
    kernel::attention::{AttentionStrategy, attention as cube_attention},
};

const VERSION: &str = "0.23.0-pre.1";

fn options(case: &Case) -> AttentionModuleOptions {
    AttentionModuleOptions {
        is_causal: case.causal,
        ..Default::default()
    }
}

fn answer<'a>(engine: &'a str, variant: &'a str, adapter: &'a str) -> Answer<'a> {
    Answer {
        engine,
        version: VERSION,
        variant,
        adapter,
        dtype: "f32",
    }
}

/// The public interface, on any of burn's devices.
fn public(device: &Device, engine: &str, adapter: &str, case: &Case, inputs: &Inputs, expected: &[f64]) {
    let load =
        |values: &[f32], shape: [usize; 4]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), shape), device);
    let q = load(&inputs.q, case.q_shape());
    let k = load(&inputs.k, case.kv_shape());
    let v = load(&inputs.v, case.kv_shape());
    device.sync().unwrap();
    let fetch = |out: Tensor<4>| -> Vec<f32> { out.into_data().try_to_vec().unwrap() };
    if wanted("attention") {
        answer(engine, "attention", adapter).guard(case, || {
            let run = || {
                let out = module::attention(q.clone(), k.clone(), v.clone(), None, None, options(case));
                device.sync().unwrap();
                out
            };
            measure(expected, run, fetch)
        });
    }
    if wanted("composed") {
        answer(engine, "composed", adapter).guard(case, || {
            let mask = case.causal.then(|| {
                let offset = (case.seqlen_k - case.seqlen_q) as i64;
                Tensor::<2, Bool>::tril_mask([case.seqlen_q, case.seqlen_k], offset, device).unsqueeze::<4>()
            });
            let run = || {
                let out = composed(case, &q, &k, &v, mask.as_ref());
                device.sync().unwrap();
                out
            };
            measure(expected, run, fetch)
        });
    }
}

fn composed(case: &Case, q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, mask: Option<&Tensor<4, Bool>>) -> Tensor<4> {
    let rows = case.heads / case.kv_heads * case.seqlen_q;
    // Query heads of a group become rows of one product, so that nothing is repeated.
    let q = q.clone().reshape([case.batch, case.kv_heads, rows, case.head_dim]);
    let mut scores = q.matmul(k.clone().swap_dims(2, 3)).mul_scalar(case.scale());
    if let Some(mask) = mask {
        scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
    }
    softmax(scores, 3).matmul(v.clone()).reshape(case.q_shape())
}

/// cubek's flash attention, by name.
fn flash(adapter: &str, case: &Case, inputs: &Inputs, expected: &[f64]) {
    let device = CubeDevice::Wgpu(Default::default());
    let load = |values: &[f32], shape: [usize; 4]| {
        CubeBackend::float_from_data(TensorData::new(values.to_vec(), shape), &device)
    };
    let q = load(&inputs.q, case.q_shape());
    let k = load(&inputs.k, case.kv_shape());
    let v = load(&inputs.v, case.kv_shape());
    let client = q.client.clone();
    answer("burn", "cubek flash", adapter).guard(case, || {
        let run = || {
            let out = cube_attention(
                q.clone(),
                k.clone(),
                v.clone(),
                None,
                None,
                options(case),
                AttentionStrategy::FlashUnit,
            )
            .unwrap_or_else(|error| panic!("{error:?}"));
            pollster::block_on(client.sync()).unwrap();
            out
        };
        let fetch = |out| {
            let data = pollster::block_on(CubeBackend::float_into_data(out)).unwrap();
            data.try_to_vec::<f32>().unwrap()
        };
        measure(expected, run, fetch)
    });
}

fn main() {
    let case = Case::from_env();
    let inputs = case.inputs();
    let expected = case.reference(&inputs, "f32");
    match std::env::args().nth(1).as_deref() {
        Some("wgpu") => {
            let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
            let adapter = device.identity().map_or(String::new(), |identity| identity.name);
            public(&device, "burn", &adapter, &case, &inputs, &expected);
            if wanted("flash") {
                flash(&adapter, &case, &inputs, &expected);
            }
        }
        #[cfg(feature = "flex")]
        Some("flex") => public(&Device::flex(), "burn-flex", "CPU", &case, &inputs, &expected),
        other => panic!("no backend {other:?}: wgpu or flex"),
    }
}
