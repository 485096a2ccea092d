// The device's memory bandwidth: reads once through more memory than caches hold.
// Grid: workgroups of 256; a workgroup owns 256 x 16 vec4 that lie in a row, an invocation every 256th of them.
// Bindings: 0 `data`, the memory to read; 1 `sums`, one vec4 an invocation of a workgroup, written only when a sum is not
// what zeros add up to, so that reading is not removed and writing costs nothing.

const THREADS: u32 = 256u;
const TRIPS: u32 = 4u;

@group(0) @binding(0) var<storage, read> data: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<vec4<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (workgroup.y * grid.x + workgroup.x) * THREADS * TRIPS * 4u + lane;
    var sum = vec4<f32>(0.0);
    for (var trip = 0u; trip < TRIPS; trip++) {
        let at = first + trip * THREADS * 4u;
        let near = data[at] + data[at + THREADS];
        let far = data[at + 2u * THREADS] + data[at + 3u * THREADS];
        sum += near + far;
    }
    if any(sum != vec4<f32>(0.0)) {
        sums[lane] = sum;
    }
}
