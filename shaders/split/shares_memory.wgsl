// Purpose: the lanes that share a key add up their products through workgroup memory. Hook of slot `shares`: defines add_shares.

// [lane * SHARE_STRIDE + n]: what a lane has of products 4 n to 4 n + 3, the last of them repeated to four; the stride is odd, so that
// lanes meet different banks.
var<workgroup> share_products: array<vec4<f32>, THREADS * SHARE_STRIDE>;

fn add_shares(scores: ptr<function, array<f32, ROWS * KEYS>>, lane: u32) {
    /*unroll*/ for (var n = 0u; n < PRODUCTS4; n++) {
        share_products[lane * SHARE_STRIDE + n] = vec4<f32>((*scores)[4u * n], (*scores)[min(4u * n + 1u, PRODUCTS - 1u)],
            (*scores)[min(4u * n + 2u, PRODUCTS - 1u)], (*scores)[min(4u * n + 3u, PRODUCTS - 1u)]);
    }
    workgroupBarrier();
    /*unroll*/ for (var n = 0u; n < PRODUCTS4; n++) {
        var sum = vec4<f32>(0.0);
        /*unroll*/ for (var other = 0u; other < SHARE; other++) {
            sum += share_products[(lane / SHARE * SHARE + other) * SHARE_STRIDE + n];
        }
        (*scores)[4u * n] = sum.x;
        (*scores)[min(4u * n + 1u, PRODUCTS - 1u)] = sum.y;
        (*scores)[min(4u * n + 2u, PRODUCTS - 1u)] = sum.z;
        (*scores)[min(4u * n + 3u, PRODUCTS - 1u)] = sum.w;
    }
    workgroupBarrier();
}
