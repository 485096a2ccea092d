//! The library's one error type: what was wrong, with which operand, what came and what was expected.

use std::fmt;

use crate::problem::DType;

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One operand of an attention call, as errors name it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Operand {
    /// Slopes of ALiBi, `[heads]`.
    AlibiSlopes,
    /// Additive bias, broadcast over `[batch, heads, seqlen_q, seqlen_k]`.
    Bias,
    /// Which blocks are closed, partial or open, `[batch, heads, q blocks, kv blocks]`.
    BlockMask,
    /// A buffer that the caller's own functions read, by its number.
    Capture(u8),
    /// Where packed sequences of keys begin, `[batch + 1]`.
    CuSeqlensK,
    /// Where packed sequences of queries begin, `[batch + 1]`.
    CuSeqlensQ,
    /// Which weights dropout keeps, `[batch, heads, seqlen_q, seqlen_k]`.
    DropoutMask,
    /// Cosines of a rotary embedding, `[max_positions, rotary_dim / 2]` or `[batch, seqlen, rotary_dim / 2]`.
    Cos,
    /// Frequencies of a rotary embedding, `[rotary_dim / 2]`.
    Frequencies,
    /// Keys, `[batch, kv_heads, seqlen_k, head_dim]`.
    Key,
    /// Positions of keys for their rotary embedding, `[batch, seqlen_k]` or `[seqlen_k]`.
    KeyPositionIds,
    /// Key padding, `[batch, seqlen_k]`, or lengths, `[batch]`.
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
    /// Positions of a rotary embedding's rows, `[batch, seqlen]` or `[seqlen]`.
    PositionIds,
    /// The cache that [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) reads.
    PastCache,
    /// The cache that [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) writes.
    PresentCache,
    /// A projection's weight or bias of [`MultiHeadAttention`](crate::MultiHeadAttention), or a linear layer's weight.
    Projection,
    /// Positions of query rows for their rotary embedding, `[batch, seqlen_q]` or `[seqlen_q]`.
    QueryPositionIds,
    /// Queries, `[batch, heads, seqlen_q, head_dim]`.
    Query,
    /// Scores at a stage before softmax, `[batch, heads, seqlen_q, seqlen_k]`.
    Scores,
    /// Attention sinks, `[heads]`: one more score of each row, with no value.
    Sinks,
    /// Sines of a rotary embedding, as its cosines.
    Sin,
    /// The new rows that [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) writes into a cache.
    Update,
    /// Values, `[batch, kv_heads, seqlen_k, head_dim_v]`.
    Value,
    /// Attention weights, `[batch, heads, seqlen_q, seqlen_k]`; also the scores they are made from.
    Weights,
    /// What a rotary embedding rotates, `[batch, heads, seqlen, head_dim]`, or a linear layer projects.
    X,
    /// Where [`Engine::tensor_scatter`](crate::Engine::tensor_scatter) begins to write, `[batch]`.
    WriteIndices,
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operand::AlibiSlopes => "alibi_slopes",
            Operand::Bias => "bias",
            Operand::BlockMask => "block_mask",
            Operand::Capture(index) => return write!(f, "capture {index}"),
            Operand::CuSeqlensK => "cu_seqlens_k",
            Operand::CuSeqlensQ => "cu_seqlens_q",
            Operand::DropoutMask => "dropout_mask",
            Operand::Cos => "cos",
            Operand::Frequencies => "frequencies",
            Operand::Key => "key",
            Operand::KeyPositionIds => "key_position_ids",
            Operand::QueryPositionIds => "query_position_ids",
            Operand::KeyPadding => "key_padding",
            Operand::Lse => "lse",
            Operand::LseParts => "lse_parts",
            Operand::Mask => "mask",
            Operand::Out => "out",
            Operand::OutParts => "out_parts",
            Operand::PositionIds => "position_ids",
            Operand::Projection => "projection",
            Operand::Query => "query",
            Operand::Scores => "scores",
            Operand::Sinks => "sinks",
            Operand::Sin => "sin",
            Operand::Value => "value",
            Operand::Weights => "weights",
            Operand::X => "x",
            Operand::PastCache => "past_cache",
            Operand::PresentCache => "present_cache",
            Operand::Update => "update",
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
    /// A number lies outside of its range.
    #[error("{parameter} is {value}, expected {expected}")]
    OutOfRange {
        /// The parameter's name.
        parameter: &'static str,
        /// What came.
        value: f64,
        /// The range, in words.
        expected: &'static str,
    },
    /// The contents of an operand on the host contradict the problem.
    #[error("{operand}: element {index} is {value}, expected {expected}")]
    Contents {
        /// Which operand.
        operand: Operand,
        /// Which of its elements.
        index: u64,
        /// What came.
        value: i64,
        /// What is expected there, in words.
        expected: String,
    },
    /// One of the caller's own functions does not compile.
    #[error("{function}: line {line}, column {column}: {message}")]
    Mod {
        /// `score_mod`, `mask_mod` or `prob_mod`.
        function: &'static str,
        /// Line of the caller's text, from 1.
        line: u32,
        /// Column of that line, from 1.
        column: u32,
        /// What the compiler said.
        message: String,
    },
    /// A parameter without which the others say too little.
    #[error("{parameter} is missing, and no other parameter implies it")]
    MissingParameter {
        /// The parameter's name.
        parameter: &'static str,
    },
    /// A list of numbers is of the wrong length.
    #[error("{parameter} has {actual} numbers, expected {expected}")]
    ListLength {
        /// The parameter's name.
        parameter: &'static str,
        /// Numbers that came.
        actual: usize,
        /// How many fit, in words.
        expected: String,
    },
    /// The channels that a rotary embedding is to rotate are no pairs, or more than there are.
    #[error("rotary_dim is {rotary_dim}, expected an even number from 2 to {limit}")]
    RotaryDim {
        /// Channels that are to rotate.
        rotary_dim: u32,
        /// The most that may: the head's channels, and 65,536.
        limit: u32,
    },
    /// An offset gives a row of a rotary embedding a position that there are no angles for.
    #[error("the offset gives a row position {position}, expected {first} to {last}")]
    Position {
        /// What came.
        position: i64,
        /// The first position there is.
        first: i64,
        /// The last.
        last: i64,
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
    /// A host slice holds numbers of another type than the descriptor says.
    #[error("{operand} is {actual}, expected {expected} as the descriptor says")]
    DType {
        /// Which operand.
        operand: Operand,
        /// The type that came.
        actual: DType,
        /// The descriptor's type.
        expected: DType,
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
    /// An attribute, an input or an output of an ONNX node breaks the operator's rules.
    #[error("ONNX {name} is {actual}, expected {expected}")]
    OnnxNode {
        /// Its name in the operator's schema.
        name: &'static str,
        /// What came.
        actual: String,
        /// What fits.
        expected: String,
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
    /// A file of tuning or of compiled kernels cannot be read or written, or is not for this device.
    #[error("{path}: {message}")]
    File {
        /// Where it lies.
        path: String,
        /// What is wrong with it, and what to do.
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

impl Error {
    /// The same about a buffer, with the operand that the caller knows it by: stages of a larger call name their own.
    pub(crate) fn naming(mut self, known_as: Operand) -> Self {
        if let Self::MissingOperand { operand }
        | Self::UnexpectedOperand { operand }
        | Self::BufferTooSmall { operand, .. }
        | Self::BufferUsage { operand, .. }
        | Self::BufferOffset { operand, .. } = &mut self
        {
            *operand = known_as;
        }
        self
    }
}
