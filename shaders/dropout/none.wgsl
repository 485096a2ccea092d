// Purpose: no dropout. Hook of slot `dropout`: defines drop_weights.

fn drop_weights(weights: vec4<f32>, position: Position, q_idx: u32, kv_idx: u32) -> vec4<f32> {
    return weights;
}
