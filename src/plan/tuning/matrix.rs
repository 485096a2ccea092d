//! Tiles of the matrix family: the matrices that a subgroup multiplies, how many of them a workgroup has, and what lies in workgroup
//! memory between their products.

use super::Tile;
use crate::Operand;
use crate::caps::{DeviceCaps, DeviceClass, Family, MatrixShape, Tier};
use crate::problem::{AttentionShape, DType, Problem};

/// Where a device has subgroups of two sizes, two of the smaller ones share what one of the larger has alone.
pub(super) const MAX_MATRIX_PARTS: u32 = 2;

/// The matrix family is for at least so many query rows; with fewer, most of a matrix would be empty.
const MIN_MATRIX_SEQLEN_Q: u32 = 16;

/// The most squares of value channels that the variables of `shaders/matrix.wgsl` hold, and of keys.
const MAX_MATRIX_V_SQUARES: u32 = 8;
const MAX_MATRIX_KV_SQUARES: u32 = 4;

/// The most squares of query channels that the variables of `shaders/matrix/query_registers.wgsl` hold.
const MAX_MATRIX_D_SQUARES: u32 = 8;

/// Workgroup memory that a workgroup of the matrix family takes where that is enough.
const MATRIX_WORKGROUP_BYTES: u32 = 32 << 10;

impl Tile {
    /// A tile of the matrix family, if that is for this device and problem: by itself for many rows of halves on GPUs. Storage of more
    /// bits is never rounded to halves, nor is what a rotary embedding makes of halves.
    pub(crate) fn choose_matrix(problem: &Problem, caps: &DeviceCaps) -> Option<Tile> {
        let seqlen_q = problem.shape().seqlen_q;
        if caps.only_family.is_none() && seqlen_q < MIN_MATRIX_SEQLEN_Q {
            return None;
        }
        let (matrix, row_lanes) = Self::matrices_of(problem, caps)?;
        let size = matrix.size();
        let most_kv_squares = (16 * row_lanes / size).clamp(MAX_MATRIX_PARTS, MAX_MATRIX_KV_SQUARES);
        let half_does = |q_squares: u32| q_squares > 1 && q_squares / 2 * size >= seqlen_q;
        let sizes = [4, 2, 1]
            .into_iter()
            .filter(|&q_squares| !half_does(q_squares))
            .flat_map(|q_squares| [most_kv_squares, MAX_MATRIX_PARTS].map(|kv_squares| (q_squares, kv_squares)));
        // Loads of query from workgroup memory cost less than registers that hold it, unless these make room for a larger tile.
        let tiles: Vec<Tile> = sizes
            .flat_map(|(q_squares, kv_squares)| [true, false].map(|resident| (q_squares, kv_squares, resident)))
            .filter_map(|(q_squares, kv_squares, resident)| {
                Self::matrix_of(q_squares, kv_squares, resident, problem, caps)
            })
            .collect();
        // As much as two workgroups of a compute unit can have, if that does.
        let found = [MATRIX_WORKGROUP_BYTES, u32::MAX].into_iter().find_map(|most_bytes| {
            tiles
                .iter()
                .find(|tile| tile.workgroup_bytes_for(problem) <= most_bytes)
        });
        found.cloned()
    }

    /// The matrices that are multiplied for a problem on a device, and how many invocations then share a row; `None` where the family is
    /// not for them.
    fn matrices_of(problem: &Problem, caps: &DeviceCaps) -> Option<(MatrixShape, u32)> {
        let operands = [Operand::Query, Operand::Key, Operand::Value];
        let halves =
            operands.into_iter().all(|operand| problem.dtype(operand) == DType::F16) && problem.rope().is_none();
        let matrix = (caps.matrix_shapes.iter().copied()).find(|matrix| match matrix.element_bytes() {
            2 => halves && caps.shader_f16,
            _ => true,
        })?;
        let wanted = match caps.only_family {
            Some(only) => only == Family::Matrix,
            None => caps.class != DeviceClass::Cpu && matrix.element_bytes() == 2,
        };
        let (least, most) = caps.subgroup_sizes?;
        let size = matrix.size();
        let lanes = most.max(size);
        let fits = least.is_power_of_two() && most.is_power_of_two() && lanes / least <= MAX_MATRIX_PARTS;
        (wanted && fits).then_some((matrix, lanes / size))
    }

    /// The tile of the matrix family with these sizes, if it fits a problem and a device.
    pub(super) fn matrix_of(
        q_squares: u32,
        kv_squares: u32,
        query_resident: bool,
        problem: &Problem,
        caps: &DeviceCaps,
    ) -> Option<Tile> {
        let (matrix, row_lanes) = Self::matrices_of(problem, caps)?;
        if !(kv_squares * matrix.size()).is_multiple_of(4 * row_lanes) {
            return None;
        }
        let tile = Tile {
            query_resident,
            ..Self::matrix(matrix, row_lanes, q_squares, kv_squares)
        };
        let fits = tile.threads() <= caps.limits.max_invocations
            && tile.workgroup_bytes_for(problem) <= caps.limits.max_workgroup_bytes
            && (query_resident || tile.query_in_registers(problem.shape().head_dim));
        fits.then_some(tile)
    }

    /// The tile of the matrix family: `q_squares` matrices of rows times `kv_squares` of keys, `row_lanes` invocations a row.
    pub const fn matrix(matrix: MatrixShape, row_lanes: u32, q_squares: u32, kv_squares: u32) -> Tile {
        let tile_q = q_squares * matrix.size();
        Tile {
            name: match matrix {
                MatrixShape::F16Size16 => "16x16 f16",
                MatrixShape::F16Size8 => "8x8 f16",
                MatrixShape::F32Size8 => "8x8 f32",
            },
            family: Family::Matrix,
            tier: Tier::Extended,
            class: None,
            max_seqlen_q: None,
            tile_q,
            tx: row_lanes,
            ty: tile_q,
            d4_chunk: kv_squares * matrix.size() / (4 * row_lanes),
            share: 1,
            max_v_groups: MAX_MATRIX_V_SQUARES,
            query_resident: true,
            matrix: Some(matrix),
            measured: "chosen by static figures alone: benches/static",
        }
    }

    /// Rows and columns of the matrices that are multiplied, at most the tile's own; 1 outside of the matrix family.
    pub fn matrix_size(&self) -> u32 {
        self.matrix.map_or(1, MatrixShape::size)
    }

    /// Whether subgroups of the matrix family hold their rows of query in registers, which leaves workgroup memory to keys.
    pub(crate) fn query_in_registers(&self, head_dim: u32) -> bool {
        !self.query_resident && head_dim.div_ceil(self.matrix_size()) <= MAX_MATRIX_D_SQUARES
    }

    /// Elements of 16 bytes, which rows in workgroup memory are further apart than they are long.
    fn matrix_pad(&self) -> u32 {
        16 / self.matrix.map_or(4, MatrixShape::element_bytes)
    }

    /// In how many parts a weight is multiplied. A half keeps 11 bits of it, which is what an out of so many bits or fewer asks for:
    /// twice the error of its own rounding. For one of singles the next 11 bits are multiplied too.
    pub(crate) fn weight_parts(&self, out: DType) -> u32 {
        match self.matrix.map(MatrixShape::element_bytes) {
            Some(2) if out == DType::F32 => 2,
            _ => 1,
        }
    }

    /// Squares of value channels of a workgroup, as even over the chunks as can be, each subgroup as many.
    pub(crate) fn v_squares(&self, head_dim_v: u32) -> u32 {
        let squares = head_dim_v.div_ceil(self.matrix_size());
        let chunks = squares.div_ceil(self.max_v_groups);
        squares.div_ceil(chunks).next_multiple_of(MAX_MATRIX_PARTS)
    }

    /// Elements from one row of query or key to the next in workgroup memory, of transposed values, of scores and of weights.
    pub(crate) fn matrix_strides(&self, head_dim: u32, out: DType) -> [u32; 4] {
        let (pad, tile_kv) = (self.matrix_pad(), self.tile_kv());
        [
            head_dim.next_multiple_of(self.matrix_size()) + pad,
            tile_kv + pad,
            tile_kv + 4,
            self.weight_parts(out) * tile_kv + pad,
        ]
    }

    /// Elements of workgroup memory that hold keys, then values.
    pub(crate) fn matrix_kv_elements(&self, shape: &AttentionShape) -> u32 {
        let [d_stride, v_stride, ..] = self.matrix_strides(shape.head_dim, DType::F32);
        let channels = self.v_squares(shape.head_dim_v) * self.matrix_size();
        self.tile_kv().saturating_mul(d_stride).max(channels * v_stride)
    }

    pub(super) fn matrix_bytes(&self, shape: &AttentionShape, out: DType) -> u32 {
        let [d_stride, _, s_stride, p_stride] = self.matrix_strides(shape.head_dim, out);
        let query = if self.query_in_registers(shape.head_dim) {
            0
        } else {
            d_stride
        };
        let rows = self.tile_q.saturating_mul(query.saturating_add(p_stride));
        let elements = rows.saturating_add(self.matrix_kv_elements(shape));
        // And two flags of four words each.
        let words = self.tile_q * s_stride + self.threads() + 8;
        let element_bytes = self.matrix.map_or(4, MatrixShape::element_bytes);
        elements.saturating_mul(element_bytes).saturating_add(4 * words)
    }
}
