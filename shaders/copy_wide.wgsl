// Purpose: copy.wgsl by vectors, for elements that begin and end at multiples of 16 bytes in both buffers.
// Grid: one workgroup of THREADS invocations owns THREADS vectors of the destination; an invocation owns one vector, which is
// 4 * PER_WORD elements.
// Bindings: 1 source, 2 destination. Hooks: none.

@group(0) @binding(1) var<storage, read> source: array<vec4<u32>>;

@group(0) @binding(2) var<storage, read_write> destination: array<vec4<u32>>;

const PER_VECTOR: u32 = 4u * PER_WORD;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = (workgroup.y * params.grid_x + workgroup.x) * THREADS + lane;
    if (number >= params.element_count / PER_VECTOR) {
        return;
    }
    let element = params.element_begin + number * PER_VECTOR;
    destination[(params.destination_offset + element) / PER_VECTOR] = source[(params.source_offset + element) / PER_VECTOR];
}
