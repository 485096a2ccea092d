//! What happens to a score between the product and softmax, and to a weight after it.

/// The points on a score's way at which it can be handed out, in their order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ScoreStage {
    /// `scale * query · key`, whatever the masks say.
    Scaled,
    /// After the softcap, whatever the masks say.
    Capped,
    /// After `score_mod`, biases and masks: what softmax sees; negative infinity where closed.
    Biased,
}

/// Dropout of attention weights: `out = sum_j weights[j] * keep[j] / (1 - probability) * value[j]`. The lse and the weights
/// handed out are those before it.
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, Dropout, DropoutKeep, Engine, HostInputs};
///
/// let keep = DropoutKeep::Philox { seed: 42, offset: 0 };
/// let descriptor = AttentionDescriptor {
///     shape: AttentionShape::new(1, 2, 20, 20, 16),
///     dropout: Some(Dropout { probability: 0.3, keep }),
///     ..Default::default()
/// };
/// let (engine, x) = (Engine::new()?, vec![0.5; 2 * 20 * 16]);
/// let inputs = HostInputs::new(&x, &x, &x);
/// assert_eq!(engine.attention(&descriptor, &inputs)?, engine.attention(&descriptor, &inputs)?);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The share of weights to drop, at least 0 and below 1.
    pub probability: f32,
    /// Which ones.
    pub keep: DropoutKeep,
}

/// Which weights dropout keeps.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DropoutKeep {
    /// The operand `dropout_mask` says: one byte a weight, `[batch, heads, seqlen_q, seqlen_k]`, contiguous, 0 drops.
    Given,
    /// A counter-based generator says: [`philox_keeps`], the same on every device and on the CPU.
    Philox {
        /// The key.
        seed: u64,
        /// The number of the call: another one gives other weights.
        offset: u32,
    },
}

/// Whether [`DropoutKeep::Philox`] keeps the weight of key `kv_idx` for query row `q_idx` of head number
/// `batch * heads + head`.
///
/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with key `seed` (low word first) and
/// counter `[kv_idx / 4, q_idx, batch * heads + head, offset]` gives four words, of which number `kv_idx % 4` is this
/// weight's. It is kept when its word is at least `probability * 2^32`, rounded down.
///
/// ```
/// use wgpu_attention::problem::philox_keeps;
///
/// let kept = (0..10_000).filter(|&kv_idx| philox_keeps(0.25, 42, 0, [0, 0, kv_idx])).count();
/// assert!((7_300..7_700).contains(&kept));
/// ```
pub fn philox_keeps(probability: f32, seed: u64, offset: u32, [head_number, q_idx, kv_idx]: [u32; 3]) -> bool {
    let words = philox(
        [kv_idx / 4, q_idx, head_number, offset],
        [seed as u32, (seed >> 32) as u32],
    );
    words[kv_idx as usize % 4] >= dropout_threshold(probability)
}

/// `probability * 2^32`, rounded down.
pub(crate) fn dropout_threshold(probability: f32) -> u32 {
    (f64::from(probability) * 4_294_967_296.0) as u32
}

/// Philox4x32-10.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let wide = u64::from(a) * u64::from(b);
        [(wide >> 32) as u32, wide as u32]
    };
    for _ in 0..10 {
        let [high0, low0] = product(0xD251_1F53, counter[0]);
        let [high1, low1] = product(0xCD9E_8D57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123's `kat_vectors` for philox4x32-10.
    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
