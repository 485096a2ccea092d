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

// The sum over the lanes of what each has.
fn sum_of_lanes(own: vec4<f32>) -> vec4<f32> {
    var total = vec4<f32>(0.0);
    /*unroll*/ for (var k = 0u; k < LANES; k++) {
        total += subgroupBroadcast(own, k);
    }
    return total;
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
    /*unroll*/ for (var d = 0u; d < DV4_OWN; d++) {
        let total = sum_of_lanes((*acc)[r * DV4_OWN + d] * weight);
        if (exists && lane == d % LANES) {
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
