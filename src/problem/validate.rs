//! From a descriptor to a problem: every rule that a request must keep.

use crate::error::{Error, Operand, Result};
use std::sync::Arc;

use crate::problem::mods::OwnedMods;
use crate::problem::{
    Algorithm, AttentionDescriptor, AttentionShape, BlockMaskShape, Broadcast, Dropout, DropoutKeep, Extent,
    KeyPadding, Outputs, OwnedRope, Packed, Problem, Window,
};
use crate::rope::RopePositions;

/// The most rows of a sequence: shaders compare positions, and differences of them, as signed numbers.
pub(crate) const MAX_ROWS: u32 = i32::MAX as u32 / 2;

pub(super) fn problem(descriptor: &AttentionDescriptor<'_>) -> Result<Problem> {
    let AttentionDescriptor {
        shape,
        outputs,
        algorithm,
        appended_keys,
        ..
    } = *descriptor;
    shape.validate()?;
    for (operand, rows) in [(Operand::Query, shape.seqlen_q), (Operand::Key, shape.seqlen_k)] {
        if rows > MAX_ROWS {
            return Err(Error::IndexOverflow {
                operand,
                elements: rows.into(),
                limit: MAX_ROWS.into(),
            });
        }
    }
    if appended_keys > shape.seqlen_k {
        return Err(Error::AppendedKeys {
            appended_keys,
            seqlen_k: shape.seqlen_k,
        });
    }
    combinations(descriptor)?;
    let mut problem = Problem {
        label: descriptor.label.map(str::to_owned),
        shape,
        dtypes: descriptor.dtypes,
        scale: scale(descriptor)?,
        softcap: softcap(descriptor)?,
        causal: descriptor.causal,
        window: descriptor.window.filter(Window::has_bound),
        key_padding: descriptor.key_padding,
        block_mask: descriptor.block_mask,
        mods: OwnedMods::new(&descriptor.mods)?,
        rope: rope(descriptor)?,
        dropout: dropout(descriptor)?,
        appended_keys,
        packed: descriptor.packed,
        outputs,
        algorithm,
        operands: Vec::new(),
    };
    tensors(&mut problem, descriptor)?;
    masks(&mut problem, descriptor)?;
    tables(&mut problem, descriptor)?;
    handed_out(&mut problem)?;
    Ok(problem)
}

fn scale(descriptor: &AttentionDescriptor<'_>) -> Result<f32> {
    match descriptor.scale {
        None => Ok((1.0 / f64::from(descriptor.shape.head_dim).sqrt()) as f32),
        Some(scale) if scale.is_finite() => Ok(scale),
        Some(value) => Err(Error::NotFinite {
            parameter: "scale",
            value,
        }),
    }
}

fn softcap(descriptor: &AttentionDescriptor<'_>) -> Result<Option<f32>> {
    match descriptor.softcap {
        Some(softcap) if softcap == f32::INFINITY => Ok(None),
        None => Ok(None),
        Some(softcap) if softcap.is_normal() && softcap > 0.0 => Ok(Some(softcap)),
        Some(softcap) => Err(Error::OutOfRange {
            parameter: "softcap",
            value: softcap.into(),
            expected: "a number above 0 (no softcap is None)",
        }),
    }
}

fn dropout(descriptor: &AttentionDescriptor<'_>) -> Result<Option<Dropout>> {
    match descriptor.dropout {
        None => Ok(None),
        Some(dropout) if !(0.0..1.0).contains(&dropout.probability) => Err(Error::OutOfRange {
            parameter: "dropout's probability",
            value: dropout.probability.into(),
            expected: "at least 0 and below 1",
        }),
        Some(dropout) if dropout.probability == 0.0 && dropout.keep != DropoutKeep::Given => Ok(None),
        Some(dropout) => Ok(Some(dropout)),
    }
}

fn rope(descriptor: &AttentionDescriptor<'_>) -> Result<Option<OwnedRope>> {
    let Some(rope) = descriptor.rope else {
        return Ok(None);
    };
    let (rotary_dim, head_dim) = (rope.frequencies.rotary_dim(), descriptor.shape.head_dim);
    if rotary_dim > head_dim {
        return Err(Error::RotaryDim {
            rotary_dim,
            limit: head_dim,
        });
    }
    let shape = descriptor.shape;
    for (positions, rows) in [(rope.query, shape.seqlen_q), (rope.key, shape.seqlen_k)] {
        if let Some(RopePositions::Offset(offset)) = positions
            && offset.checked_add_unsigned(rows).is_none()
        {
            return Err(Error::OutOfRange {
                parameter: "offset of a rotary embedding",
                value: offset.into(),
                expected: "positions below 2^31",
            });
        }
    }
    if rope.query.is_none() && rope.key.is_none() {
        return Ok(None);
    }
    Ok(Some(OwnedRope {
        frequencies: Arc::new(rope.frequencies.clone()),
        pairing: rope.pairing,
        query: rope.query,
        key: rope.key,
    }))
}

/// Features that exclude one another.
fn combinations(descriptor: &AttentionDescriptor<'_>) -> Result<()> {
    let lengths = descriptor.key_padding == Some(KeyPadding::Lengths);
    let unsupported = |what: &str, why: &str| {
        Err(Error::Unsupported {
            what: what.into(),
            why: why.into(),
        })
    };
    if descriptor.appended_keys > 0 && (lengths || descriptor.packed.is_some()) {
        return unsupported(
            "appended_keys together with lengths or packed sequences",
            "appended keys lie at the end of seqlen_k, behind what a length leaves out; use a boolean key padding",
        );
    }
    if descriptor.appended_keys > 0 && descriptor.block_mask.is_some() {
        return unsupported(
            "appended_keys together with a block mask",
            "a closed block would close them too; use a boolean mask",
        );
    }
    if lengths && descriptor.packed.is_some() {
        return unsupported(
            "KeyPadding::Lengths together with packed sequences",
            "cu_seqlens_k says the lengths already",
        );
    }
    if descriptor.mods.prob_mod.is_some() && descriptor.algorithm == Algorithm::Fused {
        return unsupported(
            "prob_mod in the fused kernel",
            "a weight is not known before its row is finished; use Algorithm::Auto or Algorithm::ThreeKernels",
        );
    }
    if descriptor.mods.prob_mod.is_some() && descriptor.outputs.rows.is_some() && descriptor.outputs.weights {
        return unsupported(
            "the weights of some rows with prob_mod",
            "they are made with out, for all rows; leave Outputs::rows out",
        );
    }
    Ok(())
}

/// Query, key, value, out and lse.
fn tensors(problem: &mut Problem, descriptor: &AttentionDescriptor<'_>) -> Result<()> {
    let AttentionShape {
        batch,
        heads,
        kv_heads,
        seqlen_q,
        seqlen_k,
        head_dim,
        head_dim_v,
    } = problem.shape;
    let (sequences, rows_q, rows_k) = match descriptor.packed {
        None => (batch, seqlen_q, seqlen_k),
        Some(Packed { tokens_q, tokens_k }) => {
            for (dimension, tokens) in [("tokens_q", tokens_q), ("tokens_k", tokens_k)] {
                if tokens == 0 {
                    return Err(Error::ZeroSize { dimension });
                }
            }
            (1, tokens_q, tokens_k)
        }
    };
    let layouts = &descriptor.layouts;
    for (operand, layout, sizes) in [
        (Operand::Query, layouts.query, [sequences, heads, rows_q, head_dim]),
        (Operand::Key, layouts.key, [sequences, kv_heads, rows_k, head_dim]),
        (Operand::Value, layouts.value, [sequences, kv_heads, rows_k, head_dim_v]),
        (Operand::Out, layouts.out, [sequences, heads, rows_q, head_dim_v]),
    ] {
        let extent = Extent::new(operand, layout, sizes)?;
        if operand == Operand::Out {
            extent.validate_apart(operand)?;
        }
        problem.set(operand, extent);
    }
    let lse = problem.lse_extent()?;
    if problem.outputs.lse {
        problem.set(Operand::Lse, lse);
    }
    Ok(())
}

/// Whatever closes positions or is added to scores, position by position.
fn masks(problem: &mut Problem, descriptor: &AttentionDescriptor<'_>) -> Result<()> {
    let AttentionShape {
        batch,
        heads,
        seqlen_q,
        seqlen_k,
        ..
    } = problem.shape;
    let masked_keys = problem.masked_keys();
    let full = [batch, heads, seqlen_q, masked_keys];
    for (operand, broadcast) in [(Operand::Mask, descriptor.mask), (Operand::Bias, descriptor.bias)] {
        let Some(broadcast) = broadcast else { continue };
        if masked_keys == 0 || broadcast.shape.contains(&0) {
            return Err(Error::Shape {
                operand,
                actual: broadcast.shape.to_vec(),
                expected: format!("sizes of at least 1 that broadcast to {full:?}"),
            });
        }
        problem.set(operand, broadcast.resolve(operand, full)?);
    }
    match descriptor.key_padding {
        None => {}
        Some(KeyPadding::Lengths) => problem.set(Operand::KeyPadding, table(Operand::KeyPadding, batch)?),
        Some(_) if masked_keys == 0 => {
            return Err(Error::Shape {
                operand: Operand::KeyPadding,
                actual: vec![batch, 0],
                expected: "at least one key that is not appended".into(),
            });
        }
        Some(_) => problem.set(
            Operand::KeyPadding,
            Extent::contiguous(Operand::KeyPadding, [batch, 1, 1, masked_keys])?,
        ),
    }
    if let Some(mask) = descriptor.block_mask {
        problem.set(Operand::BlockMask, mask.extent(&problem.shape)?);
    }
    if descriptor
        .dropout
        .is_some_and(|dropout| dropout.keep == DropoutKeep::Given)
    {
        let sizes = [batch, heads, seqlen_q, seqlen_k];
        problem.set(Operand::DropoutMask, Extent::contiguous(Operand::DropoutMask, sizes)?);
    }
    Ok(())
}

/// One number a head or a sequence, and what the caller's functions read.
fn tables(problem: &mut Problem, descriptor: &AttentionDescriptor<'_>) -> Result<()> {
    let AttentionShape { batch, heads, .. } = problem.shape;
    let mut add = |operand, wanted: bool, len: u32| -> Result<()> {
        if wanted {
            problem.set(operand, table(operand, len)?);
        }
        Ok(())
    };
    add(Operand::AlibiSlopes, descriptor.alibi_slopes, heads)?;
    add(Operand::Sinks, descriptor.sinks, heads)?;
    let bounds = batch.checked_add(1).ok_or(Error::IndexOverflow {
        operand: Operand::CuSeqlensQ,
        elements: u64::from(batch) + 1,
        limit: u32::MAX.into(),
    })?;
    add(Operand::CuSeqlensQ, descriptor.packed.is_some(), bounds)?;
    add(Operand::CuSeqlensK, descriptor.packed.is_some(), bounds)?;
    let AttentionShape { seqlen_q, seqlen_k, .. } = problem.shape;
    if let Some(rope) = problem.rope.clone() {
        for (operand, positions, rows) in [
            (Operand::QueryPositionIds, rope.query, seqlen_q),
            (Operand::KeyPositionIds, rope.key, seqlen_k),
        ] {
            match positions {
                Some(RopePositions::Ids) => {
                    problem.set(operand, Extent::contiguous(operand, [batch, 1, 1, rows])?);
                }
                Some(RopePositions::SharedIds) => problem.set(operand, table(operand, rows)?),
                None | Some(RopePositions::Offset(_)) => {}
            }
        }
    }
    let mut add = |operand, wanted: bool, len: u32| -> Result<()> {
        if wanted {
            problem.set(operand, table(operand, len)?);
        }
        Ok(())
    };
    for (index, capture) in (0..).zip(descriptor.mods.captures) {
        if capture.len == 0 {
            return Err(Error::ZeroSize {
                dimension: "len of a capture",
            });
        }
        add(Operand::Capture(index), true, capture.len)?;
    }
    Ok(())
}

fn table(operand: Operand, len: u32) -> Result<Extent> {
    Extent::contiguous(operand, [1, 1, 1, len])
}

/// Weights and scores.
fn handed_out(problem: &mut Problem) -> Result<()> {
    let AttentionShape {
        batch,
        heads,
        seqlen_q,
        seqlen_k,
        ..
    } = problem.shape;
    if let Some([begin, end]) = problem.outputs.rows
        && (begin >= end || end > seqlen_q)
    {
        return Err(Error::Unsupported {
            what: format!("outputs.rows [{begin}, {end}]"),
            why: format!("it is [begin, end] with begin < end <= seqlen_q, which is {seqlen_q}"),
        });
    }
    let rows = problem.rows();
    let sizes = [batch, heads, rows.end - rows.start, seqlen_k];
    for (operand, wanted) in [
        (Operand::Weights, problem.outputs.weights),
        (Operand::Scores, problem.outputs.scores.is_some()),
    ] {
        if wanted {
            problem.set(operand, Extent::contiguous(operand, sizes)?);
        }
    }
    Ok(())
}

impl Window {
    fn has_bound(&self) -> bool {
        self.left.is_some() || self.right.is_some()
    }
}

impl BlockMaskShape {
    /// Blocks along the query rows and along the keys.
    pub fn blocks(&self, shape: &AttentionShape) -> [u32; 2] {
        let blocks = |rows: u32, block: u32| rows.div_ceil(block.max(1));
        [
            blocks(shape.seqlen_q, self.block_q),
            blocks(shape.seqlen_k, self.block_kv),
        ]
    }

    pub(crate) fn extent(&self, shape: &AttentionShape) -> Result<Extent> {
        for (dimension, size) in [("block_q", self.block_q), ("block_kv", self.block_kv)] {
            if size == 0 {
                return Err(Error::ZeroSize { dimension });
            }
            if size > MAX_ROWS {
                return Err(Error::OutOfRange {
                    parameter: dimension,
                    value: size.into(),
                    expected: "at most 2^30 rows or keys",
                });
            }
        }
        let fits = |size: u32, full: u32| size == 1 || size == full;
        if !fits(self.batch, shape.batch) || !fits(self.heads, shape.heads) {
            return Err(Error::Shape {
                operand: Operand::BlockMask,
                actual: vec![self.batch, self.heads],
                expected: format!(
                    "1 or the problem's size of batch {} and heads {}",
                    shape.batch, shape.heads
                ),
            });
        }
        let [q_blocks, kv_blocks] = self.blocks(shape);
        Extent::contiguous(Operand::BlockMask, [self.batch, self.heads, q_blocks, kv_blocks])
    }
}

/// The sizes of a projection; strides are `[batch, row]`, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub(crate) batch: u32,
    pub(crate) rows: u32,
    pub(crate) in_features: u32,
    pub(crate) out_features: u32,
    pub(crate) input: [u32; 2],
    pub(crate) output: [u32; 2],
    pub(crate) bias: bool,
}

impl Problem {
    /// A projection `y = x Wᵀ + b` in the terms of an attention problem: rows of `x` are queries, rows of `W` keys, `y` the
    /// scores.
    pub(crate) fn linear(linear: &Linear) -> Result<Self> {
        let Linear {
            batch,
            rows,
            in_features,
            out_features,
            input,
            output,
            bias,
        } = *linear;
        let mut problem = Self::new(&AttentionDescriptor {
            label: Some("linear"),
            shape: AttentionShape::new(batch, 1, rows, out_features, in_features),
            bias: bias.then_some(Broadcast::new([1, 1, 1, out_features])),
            algorithm: Algorithm::ThreeKernels,
            ..Default::default()
        })?;
        let strides = |[batch, row]: [u32; 2]| [batch.into(), 0, row.into(), 1];
        let query = Extent::strided(Operand::Query, [batch, 1, rows, in_features], strides(input))?;
        let key = Extent::contiguous(Operand::Projection, [1, 1, out_features, in_features])?;
        let y = Extent::strided(Operand::Out, [batch, 1, rows, out_features], strides(output))?;
        problem.set(Operand::Query, query);
        problem.set(Operand::Key, key);
        problem.set(Operand::Weights, y);
        problem.outputs.weights = true;
        Ok(problem)
    }

    /// The mean of weights over heads in the terms of an attention problem: `out` is `[batch, 1, seqlen_q, seqlen_k]`.
    pub(crate) fn average_heads(batch: u32, heads: u32, seqlen_q: u32, seqlen_k: u32) -> Result<Self> {
        let mut problem = Self::new(&AttentionDescriptor {
            label: Some("average of heads"),
            shape: AttentionShape::new(batch, heads, seqlen_q, seqlen_k, 1),
            scale: Some((1.0 / f64::from(heads)) as f32),
            outputs: Outputs {
                weights: true,
                ..Default::default()
            },
            ..Default::default()
        })?;
        let out = Extent::contiguous(Operand::Out, [batch, 1, seqlen_q, seqlen_k])?;
        problem.set(Operand::Out, out);
        Ok(problem)
    }
}
