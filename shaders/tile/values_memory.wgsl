// Purpose: the workgroup memory of tile/values.wgsl in a kernel without tile/scores.wgsl.

// One vec4 is four channels of one value row, rows KV_STRIDE apart.
var<workgroup> wg_kv: array<vec4<f32>, TILE_KV * KV_STRIDE>;
