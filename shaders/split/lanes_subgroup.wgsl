// Purpose: the workgroup is one subgroup, each lane with keys of its own (SHARE is 1). Hook of slot `lanes`: defines the
// entry point, load_query_row and store_row.

// Each lane loads some of the channels, and the others get them from it.
fn load_query_row(query_rows: ptr<function, array<vec4<f32>, ROWS * D4_OWN>>, r: u32, position: Position, i: u32, row: u32,
    lane: u32) {
    /*unroll*/ for (var c = 0u; c < D4_LOADS; c++) {
        let own = turned_query(position, i, row, min(c * LANES + lane, D4 - 1u));
        /*unroll*/ for (var k = 0u; k < LANES; k++) {
            if (c * LANES + k < D4) {
                (*query_rows)[r * D4 + min(c * LANES + k, D4 - 1u)] = subgroupBroadcast(own, k);
            }
        }
    }
}

// Of as many sums over the lanes as there are lanes, each lane gets its own: half of them change hands, then half of what is left.
fn scattered_sums(own: ptr<function, array<vec4<f32>, LANES>>, lane: u32) -> vec4<f32> {
    /*unroll*/ for (var n = 0u; n < LANES_2; n++) {
        (*own)[n] = half_sum((*own)[n], (*own)[n + LANES_2], LANES_2, lane);
    }
    /*unroll*/ for (var n = 0u; n < LANES_4; n++) {
        (*own)[n] = half_sum((*own)[n], (*own)[n + LANES_4], LANES_4, lane);
    }
    /*unroll*/ for (var n = 0u; n < LANES_8; n++) {
        (*own)[n] = half_sum((*own)[n], (*own)[n + LANES_8], LANES_8, lane);
    }
    /*unroll*/ for (var n = 0u; n < LANES_16; n++) {
        (*own)[n] = half_sum((*own)[n], (*own)[n + LANES_16], LANES_16, lane);
    }
    return (*own)[0];
}

// Lanes whose number has the bit `other` keep `upper`, and the others `lower`; each gets what its opposite has of that.
fn half_sum(lower: vec4<f32>, upper: vec4<f32>, other: u32, lane: u32) -> vec4<f32> {
    let is_upper = (lane & other) != 0u;
    return select(lower, upper, is_upper) + subgroupShuffleXor(select(upper, lower, is_upper), other);
}

// Joins the states that the lanes have of row r, and stores it, if it exists.
fn store_row(position: Position, run: u32, exists: bool, row_max: f32, row_sum: f32,
    acc: ptr<function, array<vec4<f32>, ROWS * DV4_OWN>>, r: u32, lane: u32) {
    let highest = subgroupMax(row_max);
    let weight = exp_below(row_max - highest);
    let sum = sum_or_nan(subgroupAdd(row_sum * weight));
    // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
    let empty = sum == 0.0;
    let factor = select(1.0 / sum, 0.0, empty);
    /*unroll*/ for (var c = 0u; c < DV4_STORES; c++) {
        var own: array<vec4<f32>, LANES>;
        /*unroll*/ for (var k = 0u; k < LANES; k++) {
            own[k] = vec4<f32>(0.0);
            if (c * LANES + k < DV4_OWN) {
                own[k] = (*acc)[r * DV4_OWN + min(c * LANES + k, DV4_OWN - 1u)] * weight;
            }
        }
        let total = scattered_sums(&own, lane);
        let d = c * LANES + lane;
        if (exists && d < DV4_OWN) {
            store_part(position, run, d, total * factor);
        }
    }
    if (exists && lane == 0u) {
        store_part_lse(position, run, select(log_sum_exp(highest, sum), params.negative_infinity, empty));
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    attend(workgroup, lane);
}
