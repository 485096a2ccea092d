// Purpose: the matrices that a subgroup multiplies together: 8 x 8, of f32. Hook of slot `matrices`: defines
// Element, MatrixA, MatrixB, MatrixC and WEIGHT_SCALE. The sums are f32.
// Source: the extension wgpu_cooperative_matrix of naga's WGSL; SPV_KHR_cooperative_matrix.

alias Element = f32;
alias MatrixA = coop_mat8x8<f32, A>;
alias MatrixB = coop_mat8x8<f32, B>;
alias MatrixC = coop_mat8x8<f32, C>;

// What weights are stored times.
const WEIGHT_SCALE: f32 = 1.0;
