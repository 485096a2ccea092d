//! A request as a caller writes it.

use crate::problem::{
    AttentionShape, BlockMaskShape, Broadcast, CausalAlignment, DType, Dropout, KeyPadding, Layout, Mods, Packed,
    ScoreStage, Window,
};
use crate::rope::{RopeFrequencies, RopePairing, RopePositions};

/// A request for `out = softmax(scale * query keyᵀ + bias) value`, for every batch and head.
///
/// The score of query row `i` and key `j` goes this way: `scale * query · key`, softcap, `score_mod`, ALiBi, bias, additive
/// padding; then whatever any mask closes is left out. Public fields, a [`Default`] for each, and nothing checked until it
/// becomes a [`Problem`](crate::Problem).
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Problem};
///
/// let problem = Problem::new(&AttentionDescriptor {
///     shape: AttentionShape::new(1, 8, 512, 512, 64),
///     causal: Some(CausalAlignment::LowerRight),
///     ..Default::default()
/// })?;
/// assert_eq!(problem.scale(), 0.125);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionDescriptor<'a> {
    /// Name for debugging, shown in GPU captures.
    pub label: Option<&'a str>,
    /// All sizes.
    pub shape: AttentionShape,
    /// Storage types of the operands; arithmetic is `f32`.
    pub dtypes: DTypes,
    /// Factor of `query · key`; `None` is `1 / sqrt(head_dim)`. May be negative or 0, not NaN or infinite.
    pub scale: Option<f32>,
    /// `score = softcap * tanh(score / softcap)`, above 0; infinity is none.
    pub softcap: Option<f32>,
    /// Closes the keys that lie in a query's future.
    pub causal: Option<CausalAlignment>,
    /// Closes the keys outside of a sliding window. Tiles outside of it are never visited.
    pub window: Option<Window>,
    /// A boolean mask: one byte an element, 0 closes, anything else leaves open (PyTorch's `attn_mask`, true = attend).
    pub mask: Option<Broadcast>,
    /// An additive bias: one number of [`DTypes::bias`] an element, added after scaling; negative infinity closes.
    pub bias: Option<Broadcast>,
    /// ALiBi: `-slope * |i + seqlen_k - seqlen_q - j|` is added, with one `f32` slope a head in the operand `alibi_slopes`.
    pub alibi_slopes: bool,
    /// Attention sinks: one `f32` a head in the operand `sinks`, a score that joins each row's sum (and lse) and has no value.
    pub sinks: bool,
    /// Key padding, `[batch, seqlen_k - appended_keys]`, contiguous; or lengths.
    pub key_padding: Option<KeyPadding>,
    /// Closes whole blocks of positions.
    pub block_mask: Option<BlockMaskShape>,
    /// The caller's own functions in WGSL.
    pub mods: Mods<'a>,
    /// Drops weights.
    pub dropout: Option<Dropout>,
    /// The last `appended_keys` of the `seqlen_k` keys are open to every query: no causal rule, mask, bias or padding
    /// reaches them, and the operands of these end before them (PyTorch's `add_bias_kv` and `add_zero_attn`).
    pub appended_keys: u32,
    /// Rotary embedding of query and key as they are loaded.
    pub rope: Option<AttentionRope<'a>>,
    /// How query, key, value and out lie in memory.
    pub layouts: Layouts,
    /// Sequences of different lengths, one after another in memory.
    pub packed: Option<Packed>,
    /// What is wanted besides `out`.
    pub outputs: Outputs,
    /// Which way to compute; [`Algorithm::Auto`] lets the plan choose.
    pub algorithm: Algorithm,
}

/// Rotary embedding of query and key as the attention kernels load them: nothing is written, and the keys are turned each time
/// that they are visited. [`Engine::rope`](crate::Engine::rope) turns them once.
///
/// Positions count from the beginning of each sequence. A cache of keys that are turned already wants `key: None`.
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionRope, AttentionShape, CausalAlignment, Engine, HostInputs};
/// use wgpu_attention::{RopeConfig, RopeFrequencies, RopePairing, RopePositions};
///
/// // The last 4 of 20 tokens look back: their queries have positions 16 to 19.
/// let frequencies = RopeFrequencies::new(&RopeConfig::new(16))?;
/// let descriptor = AttentionDescriptor {
///     shape: AttentionShape::new(1, 2, 4, 20, 16),
///     causal: Some(CausalAlignment::LowerRight),
///     rope: Some(AttentionRope {
///         frequencies: &frequencies,
///         pairing: RopePairing::HalfSplit,
///         query: Some(RopePositions::Offset(16)),
///         key: Some(RopePositions::Offset(0)),
///     }),
///     ..Default::default()
/// };
/// let (query, key) = (vec![0.1; 2 * 4 * 16], vec![0.2; 2 * 20 * 16]);
/// let output = Engine::new()?.attention(&descriptor, &HostInputs::new(&query, &key, &key))?;
/// assert!((output.out[0] - 0.2).abs() < 1e-6);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionRope<'a> {
    /// The angles, for `rotary_dim` channels of `head_dim`.
    pub frequencies: &'a RopeFrequencies,
    /// Which channels make a pair.
    pub pairing: RopePairing,
    /// Positions of query rows, where ids are `[batch, seqlen_q]` or `[seqlen_q]`; `None` leaves them as they are.
    pub query: Option<RopePositions>,
    /// Positions of keys, where ids are `[batch, seqlen_k]` or `[seqlen_k]`; `None` leaves them as they are.
    pub key: Option<RopePositions>,
}

/// The layouts of the four tensors with channels.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Layouts {
    /// `[batch, heads, seqlen_q, head_dim]`.
    pub query: Layout,
    /// `[batch, kv_heads, seqlen_k, head_dim]`.
    pub key: Layout,
    /// `[batch, kv_heads, seqlen_k, head_dim_v]`.
    pub value: Layout,
    /// `[batch, heads, seqlen_q, head_dim_v]`.
    pub out: Layout,
}

impl Layouts {
    /// The same layout for all four.
    pub const fn all(layout: Layout) -> Self {
        Self {
            query: layout,
            key: layout,
            value: layout,
            out: layout,
        }
    }
}

/// The storage types of the operands that have a choice. The rest is `f32`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct DTypes {
    /// Of query.
    pub query: DType,
    /// Of key.
    pub key: DType,
    /// Of value.
    pub value: DType,
    /// Of out; rounded to nearest, ties to even.
    pub out: DType,
    /// Of the additive bias.
    pub bias: DType,
}

impl DTypes {
    /// The same type for query, key, value and out; the bias stays `f32`.
    pub const fn all(dtype: DType) -> Self {
        Self {
            query: dtype,
            key: dtype,
            value: dtype,
            out: dtype,
            bias: DType::F32,
        }
    }
}

/// What a call hands out besides `out`.
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, Engine, HostInputs, Outputs};
///
/// // What the rows 10, 11 and 12 look at; out and lse are still those of all 50.
/// let descriptor = AttentionDescriptor {
///     shape: AttentionShape::new(1, 2, 50, 50, 16),
///     outputs: Outputs { lse: true, weights: true, rows: Some([10, 13]), ..Default::default() },
///     ..Default::default()
/// };
/// let x = vec![0.5; 2 * 50 * 16];
/// let output = Engine::new()?.attention(&descriptor, &HostInputs::new(&x, &x, &x))?;
/// assert_eq!(output.weights.unwrap().len(), 2 * 3 * 50);
/// assert_eq!(output.lse.unwrap().len(), 2 * 50);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Outputs {
    /// `[batch, heads, seqlen_q]`, contiguous: `ln(sum_j exp(score_j))`, natural logarithm; negative infinity for a row
    /// with no open key.
    pub lse: bool,
    /// `[batch, heads, rows, seqlen_k]`, contiguous: the probabilities. With [`Algorithm::ThreeKernels`], which
    /// [`Algorithm::Auto`] takes when all rows are wanted, they are what `out` is made from; with [`Algorithm::Fused`] they
    /// are computed anew from the lse. Those of closed positions are 0, minus zero from the three kernels.
    pub weights: bool,
    /// `[batch, heads, rows, seqlen_k]`, contiguous: the scores at this stage, computed anew.
    pub scores: Option<ScoreStage>,
    /// The query rows whose weights and scores are handed out, from the first to behind the last; `None` is all.
    pub rows: Option<[u32; 2]>,
}

/// The two ways to compute.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// The plan chooses, and says why.
    #[default]
    Auto,
    /// One kernel with online softmax: nothing of size `seqlen_q * seqlen_k` is ever stored.
    Fused,
    /// Scores, softmax and weights · value as three kernels: the weights are stored.
    ThreeKernels,
}
