//! Data on the GPU: tensors that an engine makes, and places in buffers of the caller's own.

use crate::gpu::CountedBuffer;

/// A buffer on the GPU, made by [`Engine::upload`](crate::Engine::upload) or a call's outputs. Cheap to clone; the memory goes
/// with the last clone.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(crate) buffer: CountedBuffer,
    pub(crate) bytes: u64,
}

impl Tensor {
    /// The buffer, with usages `STORAGE`, `COPY_SRC` and `COPY_DST`.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer.buffer
    }

    /// Length of the data, in bytes; the buffer may be up to three bytes longer.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Where an operand begins in a buffer. The buffer needs the usage `STORAGE`.
#[derive(Clone, Copy, Debug)]
pub struct BufferAt<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// Where element `[0, 0, 0, 0]` lies: a multiple of the element's size. Multiples of four elements run faster.
    pub offset_bytes: u64,
}

impl<'a> From<&'a wgpu::Buffer> for BufferAt<'a> {
    fn from(buffer: &'a wgpu::Buffer) -> Self {
        Self {
            buffer,
            offset_bytes: 0,
        }
    }
}

impl<'a> From<&'a Tensor> for BufferAt<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self {
            buffer: tensor.buffer(),
            offset_bytes: 0,
        }
    }
}

/// The operands that a call reads.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `[batch, heads, seqlen_q, head_dim]` in the descriptor's layout and type.
    pub query: BufferAt<'a>,
    /// `[batch, kv_heads, seqlen_k, head_dim]` in the descriptor's layout and type.
    pub key: BufferAt<'a>,
    /// `[batch, kv_heads, seqlen_k, head_dim_v]` in the descriptor's layout and type.
    pub value: BufferAt<'a>,
    /// The boolean mask, one byte an element, if the descriptor names one.
    pub mask: Option<BufferAt<'a>>,
    /// The additive bias, of the descriptor's type for it, if it names one.
    pub bias: Option<BufferAt<'a>>,
    /// The key padding, bytes, `f32` or `u32` lengths as the descriptor says, if it names one.
    pub key_padding: Option<BufferAt<'a>>,
    /// `[heads]`, `f32`, if the descriptor says ALiBi.
    pub alibi_slopes: Option<BufferAt<'a>>,
    /// `[heads]`, `f32`, if the descriptor says so.
    pub sinks: Option<BufferAt<'a>>,
    /// `[batch, heads, seqlen_q, seqlen_k]`, bytes, if the descriptor's dropout is given.
    pub dropout_mask: Option<BufferAt<'a>>,
    /// `[batch, heads, q blocks, kv blocks]` of the descriptor's block mask, `u32`.
    pub block_mask: Option<BufferAt<'a>>,
    /// `[batch + 1]`, `u32`, if the descriptor says packed. Read on the GPU: planning needs no readback.
    pub cu_seqlens_q: Option<BufferAt<'a>>,
    /// `[batch + 1]`, `u32`, if the descriptor says packed.
    pub cu_seqlens_k: Option<BufferAt<'a>>,
    /// `[batch, seqlen_q]` or `[seqlen_q]`, `i32`, if the descriptor's rotary embedding says ids.
    pub query_position_ids: Option<BufferAt<'a>>,
    /// `[batch, seqlen_k]` or `[seqlen_k]`, `i32`, if the descriptor's rotary embedding says ids.
    pub key_position_ids: Option<BufferAt<'a>>,
    /// The descriptor's captures, in its order, each at a multiple of the device's storage offset alignment.
    pub captures: &'a [BufferAt<'a>],
}

impl<'a> Inputs<'a> {
    /// Query, key and value; nothing else.
    pub fn new(query: impl Into<BufferAt<'a>>, key: impl Into<BufferAt<'a>>, value: impl Into<BufferAt<'a>>) -> Self {
        Self {
            query: query.into(),
            key: key.into(),
            value: value.into(),
            mask: None,
            bias: None,
            key_padding: None,
            alibi_slopes: None,
            sinks: None,
            dropout_mask: None,
            block_mask: None,
            cu_seqlens_q: None,
            cu_seqlens_k: None,
            query_position_ids: None,
            key_position_ids: None,
            captures: &[],
        }
    }
}

/// The operands that a call writes. None may share a buffer with an input, nor overlap another output.
#[derive(Clone, Copy, Debug)]
pub struct OutputBuffers<'a> {
    /// `[batch, heads, seqlen_q, head_dim_v]` in the descriptor's layout and type.
    pub out: BufferAt<'a>,
    /// `[batch, heads, seqlen_q]`, `f32`, if the descriptor asks for it.
    pub lse: Option<BufferAt<'a>>,
    /// `[batch, heads, rows, seqlen_k]`, `f32`, if the descriptor asks for it.
    pub weights: Option<BufferAt<'a>>,
    /// `[batch, heads, rows, seqlen_k]`, `f32`, if the descriptor asks for it.
    pub scores: Option<BufferAt<'a>>,
}

impl<'a> OutputBuffers<'a> {
    /// `out` and nothing else.
    pub fn new(out: impl Into<BufferAt<'a>>) -> Self {
        Self {
            out: out.into(),
            lse: None,
            weights: None,
            scores: None,
        }
    }
}

/// What a call on tensors gives back.
#[derive(Clone, Debug)]
pub struct OutputTensors {
    /// `[batch, heads, seqlen_q, head_dim_v]` in the descriptor's layout.
    pub out: Tensor,
    /// `[batch, heads, seqlen_q]`, if the descriptor asks for it.
    pub lse: Option<Tensor>,
    /// `[batch, heads, rows, seqlen_k]`, if the descriptor asks for it.
    pub weights: Option<Tensor>,
    /// `[batch, heads, rows, seqlen_k]`, if the descriptor asks for it.
    pub scores: Option<Tensor>,
}
