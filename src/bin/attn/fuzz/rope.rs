//! Rotary embeddings of cases.

use std::sync::LazyLock;

use wgpu_attention::{AttentionRope, RopeConfig, RopeFrequencies, RopePairing, RopePositions};

use super::draw::Draw;

/// Channels that turn; the last is more than any head of a valid case has.
const ROTARY_DIMS: [u32; 8] = [2, 4, 8, 16, 32, 64, 128, 1024];

/// The frequencies of each of those.
static FREQUENCIES: LazyLock<Vec<RopeFrequencies>> = LazyLock::new(|| {
    let made = ROTARY_DIMS.map(|channels| RopeFrequencies::new(&RopeConfig::new(channels)));
    made.into_iter().filter_map(Result::ok).collect()
});

/// What of an embedding shapes kernels: how many channels turn in which pairs, and whether positions are counted or given.
#[derive(Clone, Copy, Debug)]
pub struct RopeKind {
    frequencies: usize,
    pairing: RopePairing,
    query: Option<PositionsKind>,
    key: Option<PositionsKind>,
}

/// Where positions come from.
#[derive(Clone, Copy, Debug)]
enum PositionsKind {
    Counted,
    Given,
}

/// An embedding for heads of so many channels, if they can have one.
pub fn kind(head_dim: u32, draw: &mut Draw) -> Option<RopeKind> {
    let fitting = ROTARY_DIMS.iter().filter(|&&channels| channels <= head_dim).count();
    if fitting == 0 {
        return None;
    }
    let mut positions = || draw.pick(&[None, Some(PositionsKind::Counted), Some(PositionsKind::Given)]);
    let (query, key) = (positions(), positions());
    Some(RopeKind {
        frequencies: draw.index(fitting),
        pairing: draw.pick(&[RopePairing::HalfSplit, RopePairing::Interleaved]),
        query,
        key,
    })
}

impl RopeKind {
    /// An embedding of this kind.
    pub fn request(self, draw: &mut Draw) -> AttentionRope<'static> {
        let mut positions = |kind: PositionsKind| match kind {
            PositionsKind::Counted => RopePositions::Offset(position(draw)),
            PositionsKind::Given => draw.pick(&[RopePositions::Ids, RopePositions::SharedIds]),
        };
        AttentionRope {
            frequencies: &FREQUENCIES[self.frequencies],
            pairing: self.pairing,
            query: self.query.map(&mut positions),
            key: self.key.map(&mut positions),
        }
    }
}

/// A position: near 0 most of the time.
pub fn position(draw: &mut Draw) -> i32 {
    match draw.range(0, 9) {
        0..=6 => draw.range(0, 200) as i32,
        7..=8 => -(draw.range(0, 200) as i32),
        _ => draw.range(0, 100_000) as i32,
    }
}

/// An embedding of more channels than any head has.
pub fn too_wide() -> AttentionRope<'static> {
    AttentionRope {
        frequencies: &FREQUENCIES[FREQUENCIES.len() - 1],
        pairing: RopePairing::HalfSplit,
        query: None,
        key: None,
    }
}
