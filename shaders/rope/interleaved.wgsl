// Purpose: pairs of neighbouring channels.
// Hooks defined: channels_of.

fn channels_of(pair: u32) -> vec2<u32> {
    return vec2(2u * pair, 2u * pair + 1u);
}
