// Purpose: cos and sin of position * inv_freq. Needs rope/turn.wgsl.
// Bindings: 4 steps. Hooks: position_of. Hooks defined: has_angles, cos_sin.

// [rotary_dim / 2], what a pair turns by from one position to the next: low and high word of a multiple of 2^-64 turns.
@group(0) @binding(4) var<storage, read> steps: array<vec2<u32>>;

fn has_angles(batch: u32, row: u32) -> bool {
    return true;
}

fn cos_sin(batch: u32, row: u32, pair: u32) -> vec2<f32> {
    return turn_of(position_of(batch, row), steps[pair]) * params.attention_scaling;
}
