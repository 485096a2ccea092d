//! `varlen` cases: packed sequences of different lengths, forward.

use anyhow::bail;
use wgpu_attention::{AttentionDescriptor, AttentionShape, DTypes, HostInputs, Layout, Layouts, Outputs, Packed};

use super::oracle::{Array, CaseTensors, Numbers};
use super::{Computed, Target, sdpa};

/// Runs a case; an error is an unreadable case, or the library's refusal.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let [q, k, v] = [tensors.numbers("q")?, tensors.numbers("k")?, tensors.numbers("v")?];
    let [tokens_q, heads, head_dim] = three_axes(&q, "q")?;
    let [tokens_k, kv_heads, _] = three_axes(&k, "k")?;
    let [v_tokens, v_heads, head_dim_v] = three_axes(&v, "v")?;
    if (v_tokens, v_heads) != (tokens_k, kv_heads) {
        bail!("k {:?} and v {:?} do not fit together", k.shape, v.shape);
    }
    let [cu_q, cu_k] = [tensors.words("cu_seqlens_q")?.data, tensors.words("cu_seqlens_k")?.data];
    let longest = |bounds: &[u32]| bounds.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
    let (Some(seqlen_q), Some(seqlen_k)) = (longest(&cu_q), longest(&cu_k)) else {
        bail!("cu_seqlens hold no sequence");
    };
    let slopes = tensors.optional_floats("alibi_slopes")?;
    let descriptor = AttentionDescriptor {
        shape: AttentionShape {
            batch: u32::try_from(cu_q.len() - 1)?,
            heads,
            kv_heads,
            seqlen_q: seqlen_q.max(1),
            seqlen_k: seqlen_k.max(1),
            head_dim,
            head_dim_v,
        },
        dtypes: DTypes {
            query: q.host().dtype(),
            key: k.host().dtype(),
            value: v.host().dtype(),
            out: q.host().dtype(),
            ..Default::default()
        },
        packed: Some(Packed { tokens_q, tokens_k }),
        layouts: Layouts::all(Layout::Bshd),
        alibi_slopes: slopes.is_some(),
        outputs: Outputs {
            lse: true,
            ..Default::default()
        },
        algorithm: target.algorithm(),
        ..sdpa::rules(tensors)?
    };
    let inputs = HostInputs {
        cu_seqlens_q: Some(&cu_q),
        cu_seqlens_k: Some(&cu_k),
        alibi_slopes: slopes.as_ref().map(|slopes| &slopes.data[..]),
        ..HostInputs::new(q.host(), k.host(), v.host())
    };
    let output = target.attention(&descriptor, &inputs)?;

    let mut computed = Computed::new();
    computed.insert(
        "o",
        Array {
            shape: vec![tokens_q, heads, head_dim_v],
            data: output.out,
        },
    );
    if let Some(lse) = output.lse {
        // The case's lse is [tokens, heads], ours [heads, tokens].
        let (tokens, heads) = (tokens_q as usize, heads as usize);
        let data = (0..tokens * heads)
            .map(|index| lse[index % heads * tokens + index / heads])
            .collect();
        computed.insert(
            "lse",
            Array {
                shape: vec![tokens_q, heads as u32],
                data,
            },
        );
    }
    Ok(computed)
}

fn three_axes(numbers: &Numbers, role: &str) -> anyhow::Result<[u32; 3]> {
    <[u32; 3]>::try_from(&numbers.shape[..])
        .map_err(|_| anyhow::anyhow!("{role} has shape {:?}, expected 3 axes", numbers.shape))
}
