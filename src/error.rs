//! The library's one error type: what was wrong, with which operand, what came and what was expected.

use std::fmt;

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One operand of an attention call, as errors name it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Operand {
    /// Additive bias, broadcast over `[batch, heads, seqlen_q, seqlen_k]`.
    Bias,
    /// Keys, `[batch, kv_heads, seqlen_k, head_dim]`.
    Key,
    /// Key padding, `[batch, seqlen_k]`.
    KeyPadding,
    /// Log-sum-exp of each row, `[batch, heads, seqlen_q]`.
    Lse,
    /// Log-sum-exp of each row of each part that [`Engine::merge_states`](crate::Engine::merge_states) joins.
    LseParts,
    /// Boolean mask, broadcast over `[batch, heads, seqlen_q, seqlen_k]`.
    Mask,
    /// Output, `[batch, heads, seqlen_q, head_dim_v]`.
    Out,
    /// The partial outputs that [`Engine::merge_states`](crate::Engine::merge_states) joins.
    OutParts,
    /// The cache that [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) reads.
    PastCache,
    /// The cache that [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) writes.
    PresentCache,
    /// A projection's weight or bias of [`MultiHeadAttention`](crate::MultiHeadAttention).
    Projection,
    /// Queries, `[batch, heads, seqlen_q, head_dim]`.
    Query,
    /// The new rows that [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) writes into a cache.
    Update,
    /// Values, `[batch, kv_heads, seqlen_k, head_dim_v]`.
    Value,
    /// Attention weights, `[batch, heads, seqlen_q, seqlen_k]`; also the scores they are made from.
    Weights,
    /// Where [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) begins to write, `[batch]`.
    WriteIndices,
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operand::Bias => "bias",
            Operand::Key => "key",
            Operand::KeyPadding => "key_padding",
            Operand::Lse => "lse",
            Operand::LseParts => "lse_parts",
            Operand::Mask => "mask",
            Operand::Out => "out",
            Operand::OutParts => "out_parts",
            Operand::PastCache => "past_cache",
            Operand::PresentCache => "present_cache",
            Operand::Projection => "projection",
            Operand::Query => "query",
            Operand::Update => "update",
            Operand::Value => "value",
            Operand::Weights => "weights",
            Operand::WriteIndices => "write_indices",
        })
    }
}

/// Everything that can go wrong, one variant a cause.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- The request -------------------------------------------------------------------------
    /// A size is zero. Every size of a problem is at least 1.
    #[error("{dimension} is 0, expected at least 1")]
    ZeroSize {
        /// The size's name.
        dimension: &'static str,
    },
    /// `heads` is no multiple of `kv_heads`, so query heads cannot be grouped.
    #[error("heads is {heads}, expected a multiple of kv_heads, which is {kv_heads}")]
    HeadsNotDivisible {
        /// Number of query heads.
        heads: u32,
        /// Number of key and value heads.
        kv_heads: u32,
    },
    /// `embed_dim` is no multiple of `heads`, so it cannot be split into heads.
    #[error("embed_dim is {embed_dim}, expected a multiple of heads, which is {heads}")]
    EmbedDimNotDivisible {
        /// Channels of all heads.
        embed_dim: u32,
        /// Number of heads.
        heads: u32,
    },
    /// A number that must be finite is NaN or infinite.
    #[error("{parameter} is {value}, expected a finite number")]
    NotFinite {
        /// The parameter's name.
        parameter: &'static str,
        /// What came.
        value: f32,
    },
    /// An operand's shape does not fit the problem.
    #[error("{operand} has shape {actual:?}, expected {expected}")]
    Shape {
        /// Which operand.
        operand: Operand,
        /// The shape that came.
        actual: Vec<u32>,
        /// The shape that fits, in words where several do.
        expected: String,
    },
    /// A host slice is shorter or longer than its operand.
    #[error("{operand} has {actual} elements, expected {expected}")]
    Length {
        /// Which operand.
        operand: Operand,
        /// Elements that came.
        actual: u64,
        /// Elements expected.
        expected: u64,
    },
    /// Two elements of an output would lie at the same place.
    #[error("{operand} has strides {strides:?} that lay elements over one another; an output's elements must be apart")]
    OverlappingStrides {
        /// Which output.
        operand: Operand,
        /// The strides that came, in elements.
        strides: Vec<u32>,
    },
    /// An operand spans more elements than a 32-bit index reaches.
    #[error("{operand} spans {elements} elements, expected at most {limit} (32-bit indexes)")]
    IndexOverflow {
        /// Which operand.
        operand: Operand,
        /// Elements from the first to the last.
        elements: u64,
        /// The most there may be.
        limit: u64,
    },
    /// `appended_keys` is larger than `seqlen_k`.
    #[error("appended_keys is {appended_keys}, expected at most seqlen_k, which is {seqlen_k}")]
    AppendedKeys {
        /// What came.
        appended_keys: u32,
        /// Number of keys.
        seqlen_k: u32,
    },
    /// The request asks for something that the chosen way to compute cannot do.
    #[error("{what} is not available: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not, and what to do instead.
        why: String,
    },

    // ---- The operands given to a prepared call -----------------------------------------------
    /// The descriptor names an operand that was not given.
    #[error("{operand} is missing: the descriptor asks for it")]
    MissingOperand {
        /// Which operand.
        operand: Operand,
    },
    /// An operand was given that the descriptor does not name.
    #[error("{operand} was given, but the descriptor does not ask for it")]
    UnexpectedOperand {
        /// Which operand.
        operand: Operand,
    },
    /// A buffer is too small for its operand.
    #[error(
        "{operand} needs {expected_bytes} bytes from offset {offset_bytes}, but its buffer has {actual_bytes} bytes"
    )]
    BufferTooSmall {
        /// Which operand.
        operand: Operand,
        /// Bytes in the buffer.
        actual_bytes: u64,
        /// Where the operand begins.
        offset_bytes: u64,
        /// Bytes that the operand needs from there.
        expected_bytes: u64,
    },
    /// A buffer lacks a usage that its operand needs.
    #[error("{operand}'s buffer lacks the usage {expected}")]
    BufferUsage {
        /// Which operand.
        operand: Operand,
        /// The usage that is missing.
        expected: &'static str,
    },
    /// An offset is no multiple of an element's size.
    #[error("{operand} begins at byte {offset_bytes}, expected a multiple of {alignment_bytes}")]
    BufferOffset {
        /// Which operand.
        operand: Operand,
        /// The offset that came.
        offset_bytes: u64,
        /// What it must be a multiple of.
        alignment_bytes: u64,
    },
    /// An output shares its buffer with an input, which WebGPU forbids within one dispatch, or two outputs overlap.
    #[error(
        "{operand} shares its buffer with {other}: give outputs a buffer that no input uses, and outputs places that do not overlap"
    )]
    SharedBuffer {
        /// The output.
        operand: Operand,
        /// What it shares with.
        other: Operand,
    },
    /// A named tensor of a state dict is missing, or has a wrong shape or type.
    #[error("state dict: {name}: {problem}")]
    StateDict {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },

    // ---- The machine -------------------------------------------------------------------------
    /// No adapter was found, or none of the name asked for.
    #[error("no GPU adapter: {message}")]
    NoAdapter {
        /// What was looked for and what to do.
        message: String,
    },
    /// The adapter gave no device.
    #[error("the adapter {adapter:?} gave no device: {message}")]
    NoDevice {
        /// The adapter's name.
        adapter: String,
        /// What the driver said.
        message: String,
    },
    /// The problem needs more than the device allows, and cannot be cut into smaller pieces.
    #[error("{what} needs {required}, but the device's {limit_name} is {limit}")]
    Limit {
        /// What needs it.
        what: String,
        /// How much it needs.
        required: u64,
        /// The limit's name in WebGPU.
        limit_name: &'static str,
        /// How much there is.
        limit: u64,
    },
    /// The device has no memory left for this.
    #[error("out of GPU memory while trying to {operation}: {message}")]
    OutOfMemory {
        /// What was being done.
        operation: &'static str,
        /// What wgpu said.
        message: String,
    },
    /// wgpu refused a call. With buffers of the same device this is a fault of this crate: please report it.
    #[error("wgpu refused to {operation}: {message}")]
    Validation {
        /// What was being done.
        operation: &'static str,
        /// What wgpu said.
        message: String,
    },
    /// The driver failed inside.
    #[error("the driver failed to {operation}: {message}")]
    Driver {
        /// What was being done.
        operation: &'static str,
        /// What wgpu said.
        message: String,
    },
    /// The device is gone: unplugged, reset by a watchdog, or destroyed. Make a new [`Engine`](crate::Engine).
    #[error("the GPU device is lost ({reason}); make a new engine")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
}
