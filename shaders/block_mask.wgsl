// Purpose: a block mask from the caller's mask_mod: which blocks are closed, partial or open.
// Grid: one workgroup of THREADS invocations owns one block; an invocation owns every THREADS-th position of it.
// Bindings: 0 params, 1 block_states; the caller's captures. Hooks: the caller's mask_mod(batch, head, q_idx, kv_idx).

struct BlockMaskParams {
    // The first block of this dispatch, and how many there are.
    block_begin: u32,
    blocks: u32,
    grid_x: u32,
    heads: u32,
    q_blocks: u32,
    kv_blocks: u32,
    seqlen_q: u32,
    seqlen_k: u32,
    states_offset: u32,
}

@group(0) @binding(0) var<uniform> params: BlockMaskParams;

// [batch, heads, q_blocks, kv_blocks]: 0 closed, 1 partial, 2 open. A block that reaches past an end is partial.
@group(0) @binding(1) var<storage, read_write> block_states: array<u32>;

// Bit 0: some position is open. Bit 1: some is closed. Set by any lane, read by lane 0.
var<workgroup> wg_found: atomic<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup.y * params.grid_x + workgroup.x;
    if (number >= params.blocks) {
        return;
    }
    if (lane == 0u) {
        atomicStore(&wg_found, 0u);
    }
    // The flags are cleared before any lane sets one.
    workgroupBarrier();
    let block = params.block_begin + number;
    let kv_first = (block % params.kv_blocks) * BLOCK_KV;
    let q_first = (block / params.kv_blocks) % params.q_blocks * BLOCK_Q;
    let head_number = block / params.kv_blocks / params.q_blocks;
    let head = head_number % params.heads;
    let batch = head_number / params.heads;
    var found = 0u;
    // Once both are found nothing changes any more.
    for (var at = lane; at < BLOCK_Q * BLOCK_KV && found != 3u; at += THREADS) {
        let q_idx = q_first + at / BLOCK_KV;
        let kv_idx = kv_first + at % BLOCK_KV;
        if (q_idx >= params.seqlen_q || kv_idx >= params.seqlen_k) {
            found |= 2u;
        } else {
            found |= select(2u, 1u, mask_mod(batch, head, q_idx, kv_idx));
        }
    }
    atomicOr(&wg_found, found);
    // wg_found, set by all lanes, is read by lane 0.
    workgroupBarrier();
    if (lane == 0u) {
        let all = atomicLoad(&wg_found);
        block_states[params.states_offset + block] = select(select(1u, 2u, all == 1u), 0u, all == 2u);
    }
}
