// Purpose: pairs of channels half of rotary_dim apart.
// Hooks defined: channels_of.

fn channels_of(pair: u32) -> vec2<u32> {
    if (pair >= params.rotary_pairs) {
        return vec2(2u * pair, 2u * pair + 1u);
    }
    return vec2(pair, pair + params.rotary_pairs);
}
