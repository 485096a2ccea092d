// Purpose: what the block mask says of a position's block. Defines block_state.
// Binding 15: block_states, u32, [batch, heads, q blocks, kv blocks] with broadcast strides: 0 closed, 1 partial, 2 open.

@group(0) @binding(15) var<storage, read> block_states: array<u32>;

fn block_state(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> u32 {
    return block_states[params.block_offset + batch * params.block_batch + head * params.block_head
        + (q_idx / BLOCK_Q) * params.block_row + kv_idx / BLOCK_KV];
}
