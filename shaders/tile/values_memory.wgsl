// Purpose: the workgroup memory of tile/values.wgsl in a kernel without tile/scores.wgsl.

// One vec4 is four channels of one value row, rows KV_STRIDE apart.
var<workgroup> wg_kv: array<StagedKv, TILE_KV * KV_STRIDE>;
