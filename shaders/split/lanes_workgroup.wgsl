// Purpose: several lanes share a key, and the states that the keys' lanes have are joined through workgroup memory. Hook of slot
// `lanes`: defines the entry point, load_query_row and store_row. Needs DV4 <= THREADS.

// Of a row: [lane]: its largest score and its sum; [d * THREADS + lane]: its channels.
var<workgroup> lane_max: array<f32, THREADS>;
var<workgroup> lane_sum: array<f32, THREADS>;
var<workgroup> lane_acc: array<vec4<f32>, THREADS * DV4_OWN>;

// A lane's channels of a row; 0 behind the last.
fn load_query_row(query_rows: ptr<function, array<vec4<f32>, ROWS * D4_OWN>>, r: u32, position: Position, i: u32, row: u32,
    lane: u32) {
    /*unroll*/ for (var d = 0u; d < D4_OWN; d++) {
        let own = own_vec4(lane % SHARE, d);
        (*query_rows)[r * D4_OWN + d] = select(vec4<f32>(0.0), turned_query(position, i, row, min(own, D4 - 1u)), own < D4);
    }
}

// Joins the states that the lanes have of row r, and stores it, if it exists.
fn store_row(position: Position, run: u32, exists: bool, row_max: f32, row_sum: f32,
    acc: ptr<function, array<vec4<f32>, ROWS * DV4_OWN>>, r: u32, lane: u32) {
    lane_max[lane] = row_max;
    lane_sum[lane] = row_sum;
    /*unroll*/ for (var d = 0u; d < DV4_OWN; d++) {
        lane_acc[d * THREADS + lane] = (*acc)[r * DV4_OWN + d];
    }
    workgroupBarrier();
    // The lanes of a key have the same largest score and sum.
    var highest = CLOSED;
    /*unroll*/ for (var n = 0u; n < KEY_LANES; n++) {
        highest = max(highest, lane_max[n * SHARE]);
    }
    var own_sum = 0.0;
    // Lane n stores vec4 n of the row: the lanes of a key have its channels in this order.
    var total = vec4<f32>(0.0);
    let column = min(lane, DV4 - 1u);
    let first = column / SHARE * THREADS + column % SHARE;
    /*unroll*/ for (var n = 0u; n < KEY_LANES; n++) {
        let weight = exp_below(lane_max[n * SHARE] - highest);
        own_sum = fma(lane_sum[n * SHARE], weight, own_sum);
        total = fma(vec4<f32>(weight), lane_acc[first + n * SHARE], total);
    }
    let sum = sum_or_nan(own_sum);
    // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
    let empty = sum == 0.0;
    let factor = select(1.0 / sum, 0.0, empty);
    if (exists && lane < DV4) {
        store_part(position, run, lane, total * factor);
    }
    if (exists && lane == 0u) {
        store_part_lse(position, run, select(log_sum_exp(highest, sum), params.negative_infinity, empty));
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    attend(workgroup, lane);
}
