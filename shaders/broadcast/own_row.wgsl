// Purpose: a row of an invocation of the broadcast family on its way out. Needs position.wgsl, state.wgsl and slots `out` and `lse`.

// One row, r in registers, which is row i.
fn store_own_row(position: Position, own: Own, i: u32, acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>, r: u32,
    row_max: f32, row_sum: f32) {
    let sum = sum_or_nan(row_sum);
    // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
    let empty = sum == 0.0;
    let factor = select(1.0 / sum, 0.0, empty);
    if (i <= position.q_last) {
        /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
            if (V_CHUNKS == 1u || own.first_d4 + d < DV4) {
                store_out(own.out_head + i * params.out_row, own.first_d4 + d, (*acc)[r * DV4_CHUNK + d] * factor);
            }
        }
        if (position.chunk == params.chunk_begin) {
            store_lse(position, i, select(log_sum_exp(row_max, sum), params.negative_infinity, empty));
        }
    }
}
