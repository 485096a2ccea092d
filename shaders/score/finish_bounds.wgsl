// Purpose: from query · key to the score that softmax sees where scale, causal rule and window are all there is: score/finish.wgsl
// without the hooks that would do nothing, since a driver reads each call of them before it puts it in line. Uses the hooks of slots
// `causal` and `window`.

fn finish_score(product: f32, position: Position, q_idx: u32, kv_idx: u32, wholly_open: bool) -> f32 {
    let open = (kv_idx >= params.masked_keys) | (causal_open(position, q_idx, kv_idx) & window_open(position, q_idx, kv_idx));
    return select(CLOSED, open_score(product * params.scale), open & (kv_idx < position.sequence.kv_end));
}
