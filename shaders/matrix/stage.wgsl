// Purpose: query, key and value in workgroup memory as the products of matrices read them: rows of elements, channels and keys
// that do not exist 0. Needs slots `query`, `key`, `value`, `turn_query`, `turn_key`, `matrices` and `matrix_guard`.
// Rows begin at multiples of 16 bytes, as loads of matrices want them, and one more 16 bytes apart than they are long, against
// bank conflicts.

// [TILE_Q][MATRIX * D_SQUARES], rows D_STRIDE apart: written once by all lanes, read by multiply_scores.
var<workgroup> wg_query: array<Element, TILE_Q * D_STRIDE>;
// Keys, [TILE_KV][MATRIX * D_SQUARES], rows D_STRIDE apart, for multiply_scores; then values transposed,
// [MATRIX * V_SQUARES][TILE_KV], rows V_STRIDE apart, for multiply_values. Written by all lanes.
var<workgroup> wg_kv: array<Element, KV_ELEMENTS>;

fn stage_query(position: Position, lane: u32) {
    let head = params.query_offset + position.batch * params.query_batch + position.head * params.query_head
        + position.sequence.query_base * params.query_row;
    for (var n = lane; n < TILE_Q * D_SQUARES * MATRIX4; n += THREADS) {
        let row = n / (D_SQUARES * MATRIX4);
        let d4 = n % (D_SQUARES * MATRIX4);
        let i = position.q_first + row;
        var channels = vec4<f32>(0.0);
        if (i < position.sequence.q_end && d4 < D4) {
            channels = turned_query(position, i, head + i * params.query_row, d4);
        }
        let at = row * D_STRIDE + 4u * d4;
        wg_query[at] = Element(channels.x);
        wg_query[at + 1u] = Element(channels.y);
        wg_query[at + 2u] = Element(channels.z);
        wg_query[at + 3u] = Element(channels.w);
    }
}

fn stage_key(position: Position, kv_first: u32, lane: u32) {
    let head = params.key_offset + position.batch * params.key_batch + position.kv_head * params.key_head
        + position.sequence.key_base * params.key_row;
    for (var n = lane; n < TILE_KV * D_SQUARES * MATRIX4; n += THREADS) {
        let key = n / (D_SQUARES * MATRIX4);
        let d4 = n % (D_SQUARES * MATRIX4);
        let j = kv_first + key;
        var channels = vec4<f32>(0.0);
        if (j < position.sequence.kv_end && d4 < D4) {
            channels = turned_key(position, j, head + j * params.key_row, d4);
        }
        let at = key * D_STRIDE + 4u * d4;
        wg_kv[at] = Element(channels.x);
        wg_kv[at + 1u] = Element(channels.y);
        wg_kv[at + 2u] = Element(channels.z);
        wg_kv[at + 3u] = Element(channels.w);
    }
}

fn value_head(position: Position) -> u32 {
    return params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + position.sequence.key_base * params.value_row;
}

// Four keys' values of the same four channels a trip, so that what is written lies together.
fn stage_value(position: Position, kv_first: u32, lane: u32) {
    let head = value_head(position);
    for (var n = lane; n < TILE_KV4 * V_SQUARES * MATRIX4; n += THREADS) {
        let key = 4u * (n / (V_SQUARES * MATRIX4));
        let d4 = n % (V_SQUARES * MATRIX4);
        let own_d4 = position.chunk * DV4_CHUNK + d4;
        var rows: array<vec4<f32>, 4>;
        /*unroll*/ for (var c = 0u; c < 4u; c++) {
            let j = kv_first + key + c;
            rows[c] = vec4<f32>(0.0);
            if (j < position.sequence.kv_end && own_d4 < DV4) {
                rows[c] = guarded_value(load_value(head + j * params.value_row, own_d4));
            }
        }
        /*unroll*/ for (var e = 0u; e < 4u; e++) {
            let at = (4u * d4 + e) * V_STRIDE + key;
            wg_kv[at] = Element(rows[0][e]);
            wg_kv[at + 1u] = Element(rows[1][e]);
            wg_kv[at + 2u] = Element(rows[2][e]);
            wg_kv[at + 3u] = Element(rows[3][e]);
        }
    }
}
