// Purpose: query, key and value in workgroup memory as the products of matrices read them: rows of elements, channels and keys
// that do not exist 0. Needs slots `query`, `key`, `value`, `turn_query`, `turn_key`, `matrices` and `matrix_guard`.
// Rows begin at multiples of 16 bytes, as loads of matrices want them, and one more 16 bytes apart than they are long, against
// bank conflicts.

// [TILE_Q][MATRIX * D_SQUARES], rows D_STRIDE apart: written once by all lanes, read by multiply_scores.
var<workgroup> wg_query: array<Element, TILE_Q * D_STRIDE>;
// Keys, [TILE_KV][MATRIX * D_SQUARES], rows D_STRIDE apart, for multiply_scores; then values transposed,
// [MATRIX * V_SQUARES][TILE_KV], rows V_STRIDE apart, for multiply_values. Written by all lanes.
var<workgroup> wg_kv: array<Element, KV_ELEMENTS>;

// A channel as it is multiplied, 0 where there is none. (Halves that became singles become the same halves: compilers see that here,
// but not behind the choice.)
fn existing(channel: f32, there: bool) -> Element {
    return select(Element(0.0), Element(channel), there);
}

// D_LANES (V_LANES) is the largest power of two that divides the vec4 of a row and the invocations, which are a power of two: so every
// lane has as many vec4, unless there are more lanes than vec4.
fn stage_query(position: Position, lane: u32) {
    let head = params.query_offset + position.batch * params.query_batch + position.head * params.query_head
        + position.sequence.query_base * params.query_row;
    for (var d4 = lane % D_LANES; d4 < D_SQUARES * MATRIX4; d4 += D_LANES) {
        for (var row = lane / D_LANES; row < TILE_Q; row += THREADS / D_LANES) {
            let i = min(position.q_first + row, position.q_last);
            let there = position.q_first + row == i && d4 < D4;
            let channels = turned_query(position, i, head + i * params.query_row, min(d4, D4 - 1u));
            let at = row * D_STRIDE + 4u * d4;
            wg_query[at] = existing(channels.x, there);
            wg_query[at + 1u] = existing(channels.y, there);
            wg_query[at + 2u] = existing(channels.z, there);
            wg_query[at + 3u] = existing(channels.w, there);
        }
    }
}

fn stage_key(position: Position, kv_first: u32, lane: u32) {
    let head = params.key_offset + position.batch * params.key_batch + position.kv_head * params.key_head
        + position.sequence.key_base * params.key_row;
    let kv_last = position.sequence.kv_end - 1u;
    for (var n = 0u; n < D_SQUARES * MATRIX4 / D_LANES; n++) {
        let d4 = lane % D_LANES + n * D_LANES;
        for (var m = 0u; m < (TILE_KV * D_LANES + THREADS - 1u) / THREADS; m++) {
            let key = lane / D_LANES + m * (THREADS / D_LANES);
            if (TILE_KV * D_LANES >= THREADS || key < TILE_KV) {
                let j = min(kv_first + key, kv_last);
                let there = kv_first + key == j && d4 < D4;
                let channels = turned_key(position, j, head + j * params.key_row, min(d4, D4 - 1u));
                let at = key * D_STRIDE + 4u * d4;
                wg_kv[at] = existing(channels.x, there);
                wg_kv[at + 1u] = existing(channels.y, there);
                wg_kv[at + 2u] = existing(channels.z, there);
                wg_kv[at + 3u] = existing(channels.w, there);
            }
        }
    }
}

fn value_head(position: Position) -> u32 {
    return params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + position.sequence.key_base * params.value_row;
}

// Four keys' values of the same four channels a trip, so that what is written lies together.
fn stage_value(position: Position, kv_first: u32, lane: u32) {
    let head = value_head(position);
    let kv_last = position.sequence.kv_end - 1u;
    for (var n = 0u; n < V_SQUARES * MATRIX4 / V_LANES; n++) {
        let d4 = lane % V_LANES + n * V_LANES;
        let own_d4 = position.chunk * DV4_CHUNK + d4;
        for (var m = 0u; m < (TILE_KV4 * V_LANES + THREADS - 1u) / THREADS; m++) {
            let key4 = lane / V_LANES + m * (THREADS / V_LANES);
            if (TILE_KV4 * V_LANES >= THREADS || key4 < TILE_KV4) {
                var rows: array<vec4<f32>, 4>;
                var there: array<bool, 4>;
                /*unroll*/ for (var c = 0u; c < 4u; c++) {
                    let key = kv_first + 4u * key4 + c;
                    let j = min(key, kv_last);
                    let channels = load_value(head + j * params.value_row, min(own_d4, DV4 - 1u));
                    rows[c] = guarded_value(channels);
                    there[c] = key == j && own_d4 < DV4;
                }
                /*unroll*/ for (var e = 0u; e < 4u; e++) {
                    let at = (4u * d4 + e) * V_STRIDE + 4u * key4;
                    wg_kv[at] = existing(rows[0][e], there[0]);
                    wg_kv[at + 1u] = existing(rows[1][e], there[1]);
                    wg_kv[at + 2u] = existing(rows[2][e], there[2]);
                    wg_kv[at + 3u] = existing(rows[3][e], there[3]);
                }
            }
        }
    }
}
