//! The inputs of the cases: numbers that every peer's harness draws alike, in whatever language it is written.

/// So many numbers of variance 1 about 0, as the activations behind a normalisation layer: four 16-bit uniforms of one
/// splitmix64 word, summed, centred and scaled. None is beyond 2 √3.
pub fn noise(stream: u64, count: usize) -> Vec<f32> {
    (0..count as u64)
        .map(|index| {
            let word = splitmix((stream << 40).wrapping_add(index).wrapping_add(1));
            let sum = (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
            ((sum as f64 - 131_070.0) * (3.0f64.sqrt() / 65_536.0)) as f32
        })
        .collect()
}

/// The largest that [`noise`] draws.
pub const LARGEST: f64 = 3.4642;

fn splitmix(count: u64) -> u64 {
    let word = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are what `benches/engines/python/case.py` and `benches/engines/common` draw.
    #[test]
    fn the_numbers_are_the_peers() {
        let expected = [
            [-1.991_107_8, -1.755_625_5, 0.723_255_93],
            [-1.637_646_4, 0.790_729_17, -1.563_513],
            [-0.648_197_6, 0.134_761_47, -1.582_013_4],
        ];
        assert_eq!([1, 2, 3].map(|stream| noise(stream, 3)), expected.map(Vec::from));
        let numbers = noise(1, 100_000);
        let sum: f64 = numbers.iter().map(|&number| f64::from(number)).sum();
        let squares: f64 = numbers.iter().map(|&number| f64::from(number * number)).sum();
        assert!(sum.abs() < 1e3 && (squares / 1e5 - 1.0).abs() < 0.02, "{sum} {squares}");
        assert!(numbers.iter().all(|&number| f64::from(number.abs()) < LARGEST));
    }
}
