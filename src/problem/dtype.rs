//! How numbers are stored. Arithmetic is `f32` whatever the storage.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// The storage type of a tensor.
///
/// ```
/// use wgpu_attention::DType;
///
/// assert_eq!(DType::Bf16.bytes(), 2);
/// assert_eq!(DType::F16.widen(&[0x00, 0x3c]), [1.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 single precision, 4 bytes.
    #[default]
    F32,
    /// IEEE 754 half precision, 2 bytes.
    F16,
    /// The upper half of a single: 8 bits of exponent, 7 of fraction, 2 bytes.
    Bf16,
}

impl DType {
    /// All of them.
    pub const ALL: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// The numbers that these little-endian bytes hold, exactly; bytes past the last whole element are left out.
    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            DType::F32 => (bytes.as_chunks::<4>().0.iter())
                .map(|chunk| f32::from_le_bytes(*chunk))
                .collect(),
            DType::F16 => (bytes.as_chunks::<2>().0.iter())
                .map(|chunk| f16::from_le_bytes(*chunk).to_f32())
                .collect(),
            DType::Bf16 => (bytes.as_chunks::<2>().0.iter())
                .map(|chunk| bf16::from_le_bytes(*chunk).to_f32())
                .collect(),
        }
    }

    /// The numbers as little-endian bytes, rounded to nearest, ties to even.
    pub fn narrow(self, numbers: &[f32]) -> Vec<u8> {
        match self {
            DType::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            DType::F16 => (numbers.iter())
                .flat_map(|&number| f16::from_f32(number).to_le_bytes())
                .collect(),
            DType::Bf16 => (numbers.iter())
                .flat_map(|&number| bf16::from_f32(number).to_le_bytes())
                .collect(),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_comes_back() {
        let numbers = [0.0, -1.5, 65504.0, f32::INFINITY, 6.1035156e-5];
        for dtype in [DType::F32, DType::F16] {
            assert_eq!(dtype.widen(&dtype.narrow(&numbers)), numbers);
        }
        let numbers = [0.0, -1.5, 3.0e38, f32::NEG_INFINITY, 1.0078125];
        let rounded = DType::Bf16.widen(&DType::Bf16.narrow(&numbers));
        assert_eq!(rounded[4], numbers[4]);
        assert!((rounded[2] / numbers[2] - 1.0).abs() < 0.004);
    }
}
