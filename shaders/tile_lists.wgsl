// Purpose: before attention with a block mask: for each run of LIST_Q query rows the runs of LIST_KV keys (units, each a whole
// number of tiles) that are not closed, so that closed ones cost nothing.
// Grid: one workgroup of THREADS invocations owns the list of one run of rows; an invocation owns every THREADS-th unit of keys.
// Bindings: 0 params (q_begin to q_end count runs of rows, heads are the block mask's own), 15 block_states, 17 tile_lists.

// As visit/list.wgsl reads it.
@group(0) @binding(17) var<storage, read_write> tile_lists: array<u32>;

// One word is what a lane found of its unit: 0 closed, 1 partial, 2 open. Written by each lane, read by all.
var<workgroup> wg_states: array<u32, THREADS>;

fn unit_state(batch: u32, head: u32, q_unit: u32, kv_unit: u32) -> u32 {
    let q_last = min((q_unit + 1u) * LIST_Q, params.seqlen_q) - 1u;
    let kv_last = min((kv_unit + 1u) * LIST_KV, params.seqlen_k) - 1u;
    var any_open = false;
    var all_open = true;
    for (var q_idx = q_unit * LIST_Q; q_idx <= q_last; q_idx = (q_idx / BLOCK_Q + 1u) * BLOCK_Q) {
        for (var kv_idx = kv_unit * LIST_KV; kv_idx <= kv_last; kv_idx = (kv_idx / BLOCK_KV + 1u) * BLOCK_KV) {
            let state = block_state(batch, head, q_idx, kv_idx);
            any_open = any_open || state != 0u;
            all_open = all_open && state == 2u;
        }
    }
    return select(0u, select(1u, 2u, all_open), any_open);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup.y * params.grid_x + workgroup.x;
    if (number >= params.workgroups) {
        return;
    }
    let rows = params.q_end - params.q_begin;
    let q_unit = params.q_begin + number % rows;
    let head = (number / rows) % params.head_count;
    let batch = number / rows / params.head_count;
    let list = params.list_offset + batch * params.list_batch + head * params.list_head + q_unit * params.list_row;
    let units = (params.seqlen_k + LIST_KV - 1u) / LIST_KV;
    var listed = 0u;
    for (var first = 0u; first < units; first += THREADS) {
        let unit = first + lane;
        var state = 0u;
        if (unit < units) {
            state = unit_state(batch, head, q_unit, unit);
        }
        wg_states[lane] = state;
        // wg_states, written by each lane, is read by all.
        workgroupBarrier();
        var before = 0u;
        var found = 0u;
        for (var other = 0u; other < THREADS; other++) {
            let counts = select(0u, 1u, wg_states[other] != 0u);
            before += select(0u, counts, other < lane);
            found += counts;
        }
        if (state != 0u) {
            tile_lists[list + 1u + listed + before] = 2u * unit + select(0u, 1u, state == 2u);
        }
        listed += found;
        // All have read wg_states before it is written again.
        workgroupBarrier();
    }
    if (lane == 0u) {
        tile_lists[list] = listed;
    }
}
