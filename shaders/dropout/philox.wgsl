// Purpose: dropout by a counter-based generator, the same on every device. Hook of slot `dropout`: defines drop_weights.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011): Philox4x32-10 with key dropout_key and counter
// [kv_idx / 4, q_idx, batch * heads + head, dropout_call]; key kv_idx takes word kv_idx % 4.

// The upper and the lower 32 bits of a * b.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let cross = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let middle = (a & 0xffffu) * (b >> 16u) + (cross & 0xffffu);
    return vec2<u32>((a >> 16u) * (b >> 16u) + (cross >> 16u) + (middle >> 16u), a * b);
}

fn philox(counter: vec4<u32>) -> vec4<u32> {
    var words = counter;
    var key = vec2<u32>(params.dropout_key_low, params.dropout_key_high);
    for (var round = 0u; round < 10u; round++) {
        let first = wide_product(0xd2511f53u, words.x);
        let second = wide_product(0xcd9e8d57u, words.z);
        words = vec4<u32>(second.x ^ words.y ^ key.x, second.y, first.x ^ words.w ^ key.y, first.y);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return words;
}

fn drop_weights(weights: vec4<f32>, position: Position, q_idx: u32, kv_idx: u32) -> vec4<f32> {
    var factors = vec4<f32>(0.0);
    /*unroll*/ for (var c = 0u; c < 4u; c++) {
        let j = kv_idx + c * TX;
        let words = philox(vec4<u32>(j >> 2u, q_idx, position.batch * params.heads + position.head, params.dropout_call));
        if (words[j & 3u] >= params.dropout_threshold) {
            factors[c] = params.dropout_scale;
        }
    }
    return weights * factors;
}
