//! Random operands for any problem, from a seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use wgpu_attention::problem::Extent;
use wgpu_attention::{HostInputs, HostKeyPadding, KeyPadding, Operand, Problem};

/// Operands that a test owns. Gaps between elements of strided operands hold NaN, so that reading one shows.
pub struct OwnedInputs {
    pub query: Vec<f32>,
    pub key: Vec<f32>,
    pub value: Vec<f32>,
    pub mask: Option<Vec<u8>>,
    pub bias: Option<Vec<f32>>,
    pub padding_bytes: Option<Vec<u8>>,
    pub padding_values: Option<Vec<f32>>,
}

impl OwnedInputs {
    /// Normal-ish numbers of about unit variance; a third of the masks' positions closed, and some rows wholly.
    pub fn random(problem: &Problem, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let extent = |operand| problem.extent(operand);
        let mut floats = |extent: Extent, closed: f64| {
            let mut data = vec![f32::NAN; extent.span() as usize];
            for_each_element(&extent, |index, _| {
                let sum: f32 = (0..4).map(|_| rng.random_range(-0.5f32..0.5)).sum();
                data[index] = if rng.random_bool(closed) {
                    f32::NEG_INFINITY
                } else {
                    sum * 1.7
                };
            });
            data
        };
        let query = floats(problem.extent(Operand::Query).unwrap(), 0.0);
        let key = floats(problem.extent(Operand::Key).unwrap(), 0.0);
        let value = floats(problem.extent(Operand::Value).unwrap(), 0.0);
        let bias = extent(Operand::Bias).map(|extent| floats(extent, 0.1));
        let additive = problem.key_padding() == Some(KeyPadding::Additive);
        let padding_values = extent(Operand::KeyPadding)
            .filter(|_| additive)
            .map(|extent| floats(extent, 0.2));
        let mut bytes = |extent: Extent| {
            let mut data = vec![0u8; extent.span() as usize];
            for_each_element(&extent, |index, [_, _, row, _]| {
                // A wholly closed row in every mask of more than two rows.
                let open = rng.random_bool(0.7) && !(extent.sizes[2] > 2 && row == 1);
                data[index] = if open { rng.random_range(1..=255) } else { 0 };
            });
            data
        };
        let mask = extent(Operand::Mask).map(&mut bytes);
        let padding_bytes = extent(Operand::KeyPadding).filter(|_| !additive).map(&mut bytes);
        Self {
            query,
            key,
            value,
            mask,
            bias,
            padding_bytes,
            padding_values,
        }
    }

    pub fn host(&self) -> HostInputs<'_> {
        HostInputs {
            query: &self.query,
            key: &self.key,
            value: &self.value,
            mask: self.mask.as_deref(),
            bias: self.bias.as_deref(),
            key_padding: match (&self.padding_bytes, &self.padding_values) {
                (Some(bytes), _) => Some(HostKeyPadding::Boolean(bytes)),
                (_, Some(values)) => Some(HostKeyPadding::Additive(values)),
                _ => None,
            },
        }
    }
}

/// Calls `visit(offset, position)` for every element of an operand.
pub fn for_each_element(extent: &Extent, mut visit: impl FnMut(usize, [u32; 4])) {
    for a in 0..extent.sizes[0] {
        for b in 0..extent.sizes[1] {
            for c in 0..extent.sizes[2] {
                for d in 0..extent.sizes[3] {
                    visit(extent.offset([a, b, c, d]) as usize, [a, b, c, d]);
                }
            }
        }
    }
}
