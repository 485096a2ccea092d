// Purpose: the matrices that a subgroup multiplies together: 8 x 8, of f16. Hook of slot `matrices`: defines
// Element, MatrixA, MatrixB, MatrixC and WEIGHT_SCALE. The sums are f32.
// Source: the extension wgpu_cooperative_matrix of naga's WGSL; SPV_KHR_cooperative_matrix.

alias Element = f16;
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;

// What weights are stored times: at most 2^8 of a row whose maximum rises unnoticed, so 2^15 fits a half, and the smallest that a
// half can tell from 0 is 2^-31 of the largest.
const WEIGHT_SCALE: f32 = 128.0;
