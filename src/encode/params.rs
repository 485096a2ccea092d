//! What a dispatch's parameters say of a problem and a pass.

use crate::error::Operand;
use crate::kernel::Skeleton;
use crate::kernel::params::Params;
use crate::plan::{Pass, Plan};
use crate::problem::{CausalAlignment, Dropout, DropoutKeep, Extent, Problem, dropout_threshold};
use crate::rope::RopePositions;

/// All of a pass but where its operands lie.
pub(super) fn region_params(problem: &Problem, pass: &Pass, plan: &Plan, grid: [u32; 2]) -> Params {
    let region = &pass.region;
    let shape = problem.shape();
    let keys = region.kv.end - region.kv.start;
    let window = problem.window();
    // Both lengths are below 2^30, so their difference fits.
    let offset = |alignment: Option<_>| alignment.map_or(0, |alignment| problem.offset(alignment) as i32);
    // A reach of 2^30 passes every end, and sums with it stay within 32 bits.
    let reach = |keys: Option<u32>| keys.map_or(1 << 30, |keys| keys.min(1 << 30) as i32);
    let chunk_count = match pass.skeleton {
        Skeleton::Scores | Skeleton::Linear | Skeleton::AverageHeads => {
            keys.div_ceil(plan.tile_of(pass.skeleton).tile_kv())
        }
        Skeleton::Split => pass.runs.count,
        _ => region.chunk.end - region.chunk.start,
    };
    let packed = u64::from(region.q.end - region.q.start) * u64::from(shape.group_size());
    Params {
        batch_begin: region.batch.start,
        head_begin: region.head.start,
        head_count: region.head.end - region.head.start,
        q_begin: region.q.start,
        q_end: region.q.end,
        kv_begin: region.kv.start,
        kv_end: region.kv.end,
        chunk_begin: region.chunk.start,
        chunk_count,
        workgroups: pass.workgroups,
        grid_x: grid[0],
        group_size: shape.group_size(),
        packed_tiles: packed.div_ceil(plan.tile_of(pass.skeleton).tile_q.into()) as u32,
        run_keys: pass.runs.keys,
        part_count: pass.runs.count,
        masked_keys: problem.masked_keys(),
        heads: shape.heads,
        seqlen_q: shape.seqlen_q,
        seqlen_k: shape.seqlen_k,
        tokens_q: problem.packed().map_or(0, |packed| packed.tokens_q),
        tokens_k: problem.packed().map_or(0, |packed| packed.tokens_k),
        causal_offset: offset(problem.causal()),
        window_offset: offset(window.map(|window| window.alignment)),
        window_left: reach(window.and_then(|window| window.left)),
        window_right: reach(window.and_then(|window| window.right)),
        alibi_offset: offset(Some(CausalAlignment::LowerRight)),
        scale: problem.scale(),
        softcap: problem.softcap().unwrap_or(0.0),
        negative_infinity: f32::NEG_INFINITY,
        rope_query_offset: rope_offset(problem.rope().and_then(|rope| rope.query)),
        rope_key_offset: rope_offset(problem.rope().and_then(|rope| rope.key)),
        rope_scaling: problem
            .rope()
            .map_or(0.0, |rope| rope.frequencies.attention_scaling() as f32),
        ..dropout_params(problem)
    }
}

/// The position of row 0, where positions count up.
fn rope_offset(positions: Option<RopePositions>) -> i32 {
    match positions {
        Some(RopePositions::Offset(offset)) => offset,
        _ => 0,
    }
}

fn dropout_params(problem: &Problem) -> Params {
    let Some(Dropout { probability, keep }) = problem.dropout() else {
        return Params::default();
    };
    let (seed, call) = match keep {
        DropoutKeep::Given => (0, 0),
        DropoutKeep::Philox { seed, offset } => (seed, offset),
    };
    Params {
        dropout_threshold: dropout_threshold(probability),
        dropout_scale: (1.0 / (1.0 - f64::from(probability))) as f32,
        dropout_key_low: seed as u32,
        dropout_key_high: (seed >> 32) as u32,
        dropout_call: call,
        ..Params::default()
    }
}

/// Where an operand lies: its first element and its strides.
pub(super) fn set_operand(params: &mut Params, operand: Operand, offset: u32, extent: &Extent) {
    let [batch, head, row, key] = extent.strides;
    let fields = match operand {
        Operand::Query => [
            &mut params.query_offset,
            &mut params.query_batch,
            &mut params.query_head,
            &mut params.query_row,
        ],
        Operand::Key => [
            &mut params.key_offset,
            &mut params.key_batch,
            &mut params.key_head,
            &mut params.key_row,
        ],
        Operand::Value => [
            &mut params.value_offset,
            &mut params.value_batch,
            &mut params.value_head,
            &mut params.value_row,
        ],
        Operand::Out => [
            &mut params.out_offset,
            &mut params.out_batch,
            &mut params.out_head,
            &mut params.out_row,
        ],
        Operand::Scores | Operand::Weights => [
            &mut params.scores_offset,
            &mut params.scores_batch,
            &mut params.scores_head,
            &mut params.scores_row,
        ],
        Operand::Mask => {
            params.mask_key = key;
            [
                &mut params.mask_offset,
                &mut params.mask_batch,
                &mut params.mask_head,
                &mut params.mask_row,
            ]
        }
        Operand::Bias => {
            params.bias_key = key;
            [
                &mut params.bias_offset,
                &mut params.bias_batch,
                &mut params.bias_head,
                &mut params.bias_row,
            ]
        }
        Operand::DropoutMask => [
            &mut params.dropout_offset,
            &mut params.dropout_batch,
            &mut params.dropout_head,
            &mut params.dropout_row,
        ],
        Operand::AlibiSlopes => {
            params.alibi_slopes_offset = offset;
            return;
        }
        Operand::Sinks => {
            params.sinks_offset = offset;
            return;
        }
        Operand::QueryPositionIds => {
            (params.query_ids_offset, params.query_ids_batch) = (offset, batch);
            return;
        }
        Operand::KeyPositionIds => {
            (params.key_ids_offset, params.key_ids_batch) = (offset, batch);
            return;
        }
        Operand::CuSeqlensQ => {
            params.cu_q_offset = offset;
            return;
        }
        Operand::CuSeqlensK => {
            params.cu_k_offset = offset;
            return;
        }
        Operand::BlockMask => [
            &mut params.block_offset,
            &mut params.block_batch,
            &mut params.block_head,
            &mut params.block_row,
        ],
        // Captures begin where their binding does.
        Operand::Capture(_) => return,
        Operand::Lse => {
            (params.lse_offset, params.lse_batch, params.lse_head) = (offset, batch, head);
            return;
        }
        Operand::KeyPadding | Operand::Projection => {
            (params.padding_offset, params.padding_batch) = (offset, batch);
            return;
        }
        // Of operations beside attention, which have parameters of their own.
        _ => return,
    };
    for (field, value) in fields.into_iter().zip([offset, batch, head, row]) {
        *field = value;
    }
}
