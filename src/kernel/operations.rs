//! The kernels of the operations beside attention.

mod rope;

pub use rope::{RopeAngleSource, RopeKernel, RopeStore, rope};

use crate::caps::MatrixShape;
use crate::kernel::KernelConfig;
use crate::kernel::hooks::matrix_file;
use crate::problem::DType;
use crate::problem::mods::OwnedMods;

/// Invocations of a workgroup: what WebGPU's default limits allow.
pub const THREADS: u32 = 256;

/// The number by which `shaders/storage.wgsl` knows a storage type.
pub fn storage_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    }
}

/// Elements of a storage type in a 32-bit word.
pub fn per_word(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 1,
        DType::F16 | DType::Bf16 => 2,
    }
}

/// `shaders/merge_states.wgsl`, from one storage type to another. It may `resume` from an earlier result in `out`, which
/// must be `f32` then.
pub fn merge_states(parts: DType, out: DType, resume: bool) -> KernelConfig {
    let mut kernel = merge_kernel("merge_states", "merge_states.wgsl", [parts, out], resume);
    kernel.constants.push(("OUT_PER_WORD", per_word(out)));
    kernel
}

/// `shaders/merge_states_wide.wgsl`: the same by vectors of 16 bytes.
pub fn merge_states_wide(parts: DType, out: DType, resume: bool) -> KernelConfig {
    merge_kernel("merge_states_wide", "merge_states_wide.wgsl", [parts, out], resume)
}

fn merge_kernel(name: &'static str, file: &'static str, [parts, out]: [DType; 2], resume: bool) -> KernelConfig {
    let earlier = if resume {
        "merge/earlier.wgsl"
    } else {
        "merge/earlier_none.wgsl"
    };
    KernelConfig::operation(
        name,
        vec!["storage.wgsl", "state.wgsl", earlier, "merge/lse.wgsl", file],
        vec![
            ("THREADS", THREADS),
            ("PARTS_DTYPE", storage_type(parts)),
            ("OUT_DTYPE", storage_type(out)),
        ],
    )
}

/// `shaders/copy.wgsl`, or `wide`, `shaders/copy_wide.wgsl`: the same by vectors of 16 bytes.
pub fn copy(dtype: DType, wide: bool) -> KernelConfig {
    let (name, file) = match wide {
        true => ("copy_wide", "copy_wide.wgsl"),
        false => ("copy", "copy.wgsl"),
    };
    KernelConfig::operation(
        name,
        vec!["storage.wgsl", "copy/params.wgsl", file],
        vec![
            ("THREADS", THREADS),
            ("DTYPE", storage_type(dtype)),
            ("PER_WORD", per_word(dtype)),
        ],
    )
}

/// `shaders/tensor_scatter.wgsl`, which may be `circular`, may begin at row 0 for want of `write_indices`, and may copy by
/// vectors of 16 bytes.
pub fn tensor_scatter(dtype: DType, circular: bool, write_indices: bool, wide: bool) -> KernelConfig {
    let indices = if write_indices {
        "scatter/indices.wgsl"
    } else {
        "scatter/indices_none.wgsl"
    };
    let chunks = if wide {
        "scatter/vectors.wgsl"
    } else {
        "scatter/words.wgsl"
    };
    KernelConfig::operation(
        "tensor_scatter",
        vec!["storage.wgsl", indices, chunks, "tensor_scatter.wgsl"],
        vec![
            ("THREADS", THREADS),
            ("DTYPE", storage_type(dtype)),
            ("PER_WORD", per_word(dtype)),
            ("CIRCULAR", u32::from(circular)),
        ],
    )
}

/// How many subgroups' sums `shaders/matrix/self_test.wgsl` hands out.
pub(crate) const SELF_TEST_SQUARES: u32 = 4;

/// `shaders/matrix/self_test.wgsl`, in a workgroup of at least two subgroups of at most `lanes` invocations.
pub fn matrix_self_test(matrix: MatrixShape, lanes: u32) -> KernelConfig {
    let size = matrix.size();
    KernelConfig::operation(
        "matrix_self_test",
        vec![matrix_file(matrix), "matrix/self_test.wgsl"],
        vec![
            ("THREADS", 2 * lanes),
            ("MATRIX", size),
            ("STRIDE", size + 16 / matrix.element_bytes()),
            ("SQUARES", SELF_TEST_SQUARES),
        ],
    )
}

/// Every kernel of the operations beside attention.
pub fn all() -> Vec<KernelConfig> {
    let mut kernels = Vec::new();
    for dtype in DType::ALL {
        for out_dtype in DType::ALL {
            kernels.push(merge_states(dtype, out_dtype, false));
            kernels.push(merge_states_wide(dtype, out_dtype, false));
        }
        kernels.push(merge_states(dtype, DType::F32, true));
        kernels.push(merge_states_wide(dtype, DType::F32, true));
    }
    for dtype in DType::ALL {
        for wide in [false, true] {
            kernels.push(copy(dtype, wide));
            for (circular, write_indices) in [(false, false), (false, true), (true, false), (true, true)] {
                kernels.push(tensor_scatter(dtype, circular, write_indices, wide));
            }
        }
    }
    let mods = OwnedMods {
        mask_mod: Some("fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool { return true; }".into()),
        ..Default::default()
    };
    let blocks = vec![("THREADS", THREADS), ("BLOCK_Q", 128), ("BLOCK_KV", 128)];
    kernels.push(KernelConfig::block_mask(blocks, &mods));
    kernels.extend(all_rope());
    kernels.extend(MatrixShape::ALL.map(|matrix| matrix_self_test(matrix, 32)));
    kernels
}

fn all_rope() -> Vec<KernelConfig> {
    let mut kernels = Vec::new();
    let mut angles = Vec::new();
    for ids in [false, true] {
        angles.push(RopeAngleSource::Frequencies { ids });
        for dtype in DType::ALL {
            angles.push(RopeAngleSource::CacheByPosition { dtype, ids });
            angles.push(RopeAngleSource::CacheByRow { dtype });
        }
    }
    for angles in angles {
        for x in [None, Some(DType::F32), Some(DType::F16), Some(DType::Bf16)] {
            for (out, interleaved, store) in [
                (DType::F32, false, RopeStore::Each),
                (DType::F32, true, RopeStore::Each),
                (DType::F16, true, RopeStore::Adjacent),
                (DType::F16, false, RopeStore::Columns),
                (DType::Bf16, false, RopeStore::Halves),
            ] {
                kernels.push(rope(&RopeKernel {
                    x,
                    out,
                    store,
                    interleaved,
                    angles,
                }));
            }
        }
    }
    kernels
}
