// Purpose: keys and values in workgroup memory as the products of matrices read them: rows of elements, channels and keys that do
// not exist 0. Needs slots `key`, `value`, `turn_key`, `matrices` and `matrix_guard`, tile/kinds.wgsl and
// matrix/own.wgsl.
// Rows begin at multiples of 16 bytes, as loads of matrices want them, and one more 16 bytes apart than they are long, against
// bank conflicts.

// Keys, [TILE_KV][MATRIX * D_SQUARES], rows D_STRIDE apart, for multiply_scores; then values transposed,
// [MATRIX * V_SQUARES][TILE_KV], rows V_STRIDE apart, for add_products. Before all, where query is held in registers, its rows as keys.
// Written by all lanes.
var<workgroup> wg_kv: array<Element, KV_ELEMENTS>;

// A channel as it is multiplied, 0 where there is none. (Halves that became singles become the same halves: compilers see that here,
// but not behind the choice.)
fn existing(channel: f32, there: bool) -> Element {
    return select(Element(0.0), Element(channel), there);
}

fn query_head(position: Position) -> u32 {
    return params.query_offset + position.batch * params.query_batch + position.head * params.query_head
        + position.sequence.query_base * params.query_row;
}

// Whether channels of a key are there.
fn has_channel(d4: u32) -> bool {
    return D4 == D_SQUARES * MATRIX4 || d4 < D4;
}

// Keys of a tile that is open are all there. D_LANES (below, V_LANES) is the largest power of two that divides the vec4 of a row and the
// invocations, which are a power of two: so every lane has as many vec4, unless there are more lanes than vec4.
fn stage_key(position: Position, kv_first: u32, kind: u32, lane: u32) {
    let kv_last = position.sequence.kv_end - 1u;
    for (var n = 0u; n < D_SQUARES * MATRIX4 / D_LANES; n++) {
        let d4 = lane % D_LANES + n * D_LANES;
        for (var m = 0u; m < (TILE_KV * D_LANES + THREADS - 1u) / THREADS; m++) {
            let first = m * (THREADS / D_LANES);
            let key = lane / D_LANES + first;
            if (TILE_KV * D_LANES >= THREADS || key < TILE_KV) {
                var j = kv_first + key;
                var row = own.key_row + (kv_first + first) * params.key_row;
                if (kind != TILE_OPEN) {
                    j = min(j, kv_last);
                    row = own.key_head + j * params.key_row;
                }
                let there = (kind == TILE_OPEN || kv_first + key == j) && has_channel(d4);
                let channels = turned_key(position, j, row, select(D4 - 1u, d4, has_channel(d4)));
                let at = own.key_at + first * D_STRIDE + 4u * D_LANES * n;
                wg_kv[at] = existing(channels.x, there);
                wg_kv[at + 1u] = existing(channels.y, there);
                wg_kv[at + 2u] = existing(channels.z, there);
                wg_kv[at + 3u] = existing(channels.w, there);
            }
        }
    }
}

// Whether channels of a value are there.
fn has_value_channel(own_d4: u32) -> bool {
    return DV4 % (V_SQUARES * MATRIX4) == 0u || own_d4 < DV4;
}

// Whether values that are not finite are left out of the product: where keys may be closed, and where a weight is of two parts, of
// which one may be 0.
fn guards(kind: u32) -> bool {
    return kind != TILE_OPEN || WEIGHT_PARTS == 2u;
}

// Four keys' values of the same four channels a trip, so that what is written lies together.
fn stage_value(position: Position, kv_first: u32, kind: u32, lane: u32) {
    let kv_last = position.sequence.kv_end - 1u;
    for (var n = 0u; n < V_SQUARES * MATRIX4 / V_LANES; n++) {
        let d4 = lane % V_LANES + n * V_LANES;
        let own_d4 = position.chunk * DV4_CHUNK + d4;
        for (var m = 0u; m < (TILE_KV4 * V_LANES + THREADS - 1u) / THREADS; m++) {
            let first = m * (THREADS / V_LANES);
            let key4 = lane / V_LANES + first;
            if (TILE_KV4 * V_LANES >= THREADS || key4 < TILE_KV4) {
                var rows: array<vec4<f32>, 4>;
                var there: array<bool, 4>;
                /*unroll*/ for (var c = 0u; c < 4u; c++) {
                    let key = kv_first + 4u * key4 + c;
                    var j = key;
                    var row = own.value_row + (kv_first + 4u * first + c) * params.value_row;
                    if (kind != TILE_OPEN) {
                        j = min(j, kv_last);
                        row = own.value_head + j * params.value_row;
                    }
                    rows[c] = load_value(row, select(DV4 - 1u, own_d4, has_value_channel(own_d4)));
                    there[c] = (kind == TILE_OPEN || key == j) && has_value_channel(own_d4);
                }
                if (guards(kind)) {
                    rows = guarded_values(rows);
                }
                /*unroll*/ for (var e = 0u; e < 4u; e++) {
                    let at = own.value_at + (4u * n * V_LANES + e) * V_STRIDE + 4u * first;
                    wg_kv[at] = existing(rows[0][e], there[0]);
                    wg_kv[at + 1u] = existing(rows[1][e], there[1]);
                    wg_kv[at + 2u] = existing(rows[2][e], there[2]);
                    wg_kv[at + 3u] = existing(rows[3][e], there[3]);
                }
            }
        }
    }
}
