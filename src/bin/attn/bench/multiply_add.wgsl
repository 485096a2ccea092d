// The device's own multiply-add rate.
// Grid: workgroups of 64; an invocation owns eight vec4, so 32 chains of multiply-adds that do not wait for each other.
// Bindings: 0 `seeds` [one vec4 an invocation of a workgroup], numbers that no compiler knows; 1 `sink`, one vec4 an
// invocation, written so that the work is not removed.

const THREADS: u32 = 64u;
const ROUNDS: u32 = 4096u;

@group(0) @binding(0) var<storage, read> seeds: array<vec4<f32>, THREADS>;
@group(0) @binding(1) var<storage, read_write> sink: array<vec4<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) lane: u32) {
    let factor = seeds[lane];
    let term = seeds[lane ^ 1u];
    var a = factor;
    var b = factor + 1.0;
    var c = factor + 2.0;
    var d = factor + 3.0;
    var e = factor + 4.0;
    var f = factor + 5.0;
    var g = factor + 6.0;
    var h = factor + 7.0;
    // Four rounds a trip: what a loop carries costs some software drivers more than a round does.
    for (var round = 0u; round < ROUNDS; round += 4u) {
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        c = fma(c, factor, term);
        d = fma(d, factor, term);
        e = fma(e, factor, term);
        f = fma(f, factor, term);
        g = fma(g, factor, term);
        h = fma(h, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        c = fma(c, factor, term);
        d = fma(d, factor, term);
        e = fma(e, factor, term);
        f = fma(f, factor, term);
        g = fma(g, factor, term);
        h = fma(h, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        c = fma(c, factor, term);
        d = fma(d, factor, term);
        e = fma(e, factor, term);
        f = fma(f, factor, term);
        g = fma(g, factor, term);
        h = fma(h, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        c = fma(c, factor, term);
        d = fma(d, factor, term);
        e = fma(e, factor, term);
        f = fma(f, factor, term);
        g = fma(g, factor, term);
        h = fma(h, factor, term);
    }
    sink[lane] = a + b + c + d + e + f + g + h;
}
