// Purpose: rotary embedding in the attention kernels: what turns query and key as they are loaded. Needs rope/turn.wgsl.
// Defines partner_of, turned_channels.
// Binding 18: rope_steps, [ROTARY_DIM / 2], as rope/turn.wgsl has them.

@group(0) @binding(18) var<storage, read> rope_steps: array<vec2<u32>>;

// The pair that a channel belongs to: two neighbours, or two half of ROTARY_DIM apart.
fn pair_of(channel: u32) -> u32 {
    return select(channel % (ROTARY_DIM / 2u), channel / 2u, INTERLEAVED == 1u);
}

// The other channel of its pair.
fn partner_of(channel: u32) -> u32 {
    let half_split = select(channel - ROTARY_DIM / 2u, channel + ROTARY_DIM / 2u, channel < ROTARY_DIM / 2u);
    return select(half_split, channel ^ 1u, INTERLEAVED == 1u);
}

// A channel and its partner to what the channel becomes: x1 cos - x2 sin for the first of a pair, x2 cos + x1 sin for the
// second.
fn turned(channel: u32, x: f32, partner: f32, position: i32) -> f32 {
    let turn = turn_of(position, rope_steps[pair_of(channel)]) * params.rope_scaling;
    let is_first = partner_of(channel) > channel;
    return fma(x, turn.x, select(partner, -partner, is_first) * turn.y);
}

// Four channels from 4 * d4 on, of which those from ROTARY_DIM on stay.
fn turned_channels(d4: u32, own: vec4<f32>, partners: vec4<f32>, position: i32) -> vec4<f32> {
    var channels = own;
    /*unroll*/ for (var c = 0u; c < 4u; c++) {
        if (4u * d4 + c < ROTARY_DIM) {
            channels[c] = turned(4u * d4 + c, own[c], partners[c], position);
        }
    }
    return channels;
}
