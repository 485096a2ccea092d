// Purpose: whether a device multiplies matrices right: what `matrices.rs` asks of each shape before kernels rely on it. Sums that are
// carried over a loop, rescaled through workgroup memory in a branch on the way, as matrix.wgsl does it.
// Grid: one workgroup of THREADS invocations; each subgroup computes one square by itself, the same as every other.
// Bindings: 1 given, 2 found.
// Needs slot `matrices`.

// [trips, the trip that doubles the sums, then a and b, each [MATRIX][MATRIX] by rows]: small whole numbers.
@group(0) @binding(1) var<storage, read> given: array<u32>;
// [subgroups, or 0 if these are not all of subgroup_size, then of each subgroup [MATRIX][MATRIX] by rows]: as many as lie in the buffer.
@group(0) @binding(2) var<storage, read_write> found: array<f32>;

// a plus the number of the trip, by rows, and b transposed, by rows: written by all lanes, read by all subgroups.
var<workgroup> wg_a: array<Element, MATRIX * STRIDE>;
var<workgroup> wg_b: array<Element, MATRIX * STRIDE>;
// One square a subgroup: written by it, doubled by all lanes, read by it.
var<workgroup> wg_sums: array<f32, SQUARES * MATRIX * MATRIX>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32, @builtin(subgroup_size) lanes: u32) {
    let own = min(subgroup, SQUARES - 1u) * MATRIX * MATRIX;
    var sums: MatrixC;
    let trips = given[0];
    for (var trip = 0u; trip < trips; trip++) {
        for (var n = lane; n < MATRIX * MATRIX; n += THREADS) {
            let row = n / MATRIX;
            let column = n % MATRIX;
            wg_a[row * STRIDE + column] = Element(f32(given[2u + n] + trip));
            wg_b[column * STRIDE + row] = Element(f32(given[2u + MATRIX * MATRIX + n]));
        }
        // wg_a and wg_b, written by all lanes, are read by all subgroups.
        workgroupBarrier();
        let a = coopLoadT<MatrixA>(&wg_a[0], STRIDE);
        let b = coopLoad<MatrixB>(&wg_b[0], STRIDE);
        sums = coopMultiplyAdd(a, b, sums);
        if (trip == given[1]) {
            coopStoreT(sums, &wg_sums[own], MATRIX);
            // wg_sums is doubled by all lanes, then read by its subgroup.
            workgroupBarrier();
            for (var n = lane; n < SQUARES * MATRIX * MATRIX; n += THREADS) {
                wg_sums[n] *= 2.0;
            }
            workgroupBarrier();
            sums = coopLoadT<MatrixC>(&wg_sums[own], MATRIX);
        }
        // wg_a and wg_b are written next by the next trip.
        workgroupBarrier();
    }
    sums = sums + sums;
    coopStoreT(sums, &wg_sums[own], MATRIX);
    // wg_sums, written by its subgroup, is read by all lanes.
    workgroupBarrier();
    for (var n = lane; n < SQUARES * MATRIX * MATRIX; n += THREADS) {
        found[1u + n] = wg_sums[n];
    }
    if (lane == 0u) {
        found[0] = select(0.0, f32(subgroups), subgroups * lanes == THREADS);
    }
}
