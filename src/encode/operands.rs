//! The buffers of a call, and whether they will do.

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::plan::Plan;
use crate::problem::Problem;
use crate::tensor::{BufferAt, Inputs, OutputBuffers};

/// All operands of a call, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operands<'a> {
    pub(super) places: Vec<(Operand, BufferAt<'a>)>,
}

impl<'a> Operands<'a> {
    pub(crate) fn attention(inputs: &Inputs<'a>, outputs: &OutputBuffers<'a>) -> Self {
        let operands = Self::default()
            .with(Operand::Query, Some(inputs.query))
            .with(Operand::Key, Some(inputs.key))
            .with(Operand::Value, Some(inputs.value))
            .with(Operand::Mask, inputs.mask)
            .with(Operand::Bias, inputs.bias)
            .with(Operand::KeyPadding, inputs.key_padding)
            .with(Operand::AlibiSlopes, inputs.alibi_slopes)
            .with(Operand::Sinks, inputs.sinks)
            .with(Operand::DropoutMask, inputs.dropout_mask)
            .with(Operand::BlockMask, inputs.block_mask)
            .with(Operand::CuSeqlensQ, inputs.cu_seqlens_q)
            .with(Operand::CuSeqlensK, inputs.cu_seqlens_k)
            .with(Operand::QueryPositionIds, inputs.query_position_ids)
            .with(Operand::KeyPositionIds, inputs.key_position_ids)
            .with(Operand::Out, Some(outputs.out))
            .with(Operand::Lse, outputs.lse)
            .with(Operand::Weights, outputs.weights)
            .with(Operand::Scores, outputs.scores);
        // More captures than numbers are more than any problem has, which `validate` says.
        (0..=u8::MAX)
            .zip(inputs.captures)
            .fold(operands, |operands, (index, at)| {
                operands.with(Operand::Capture(index), Some(*at))
            })
    }

    pub(crate) fn with(mut self, operand: Operand, at: Option<BufferAt<'a>>) -> Self {
        self.places.extend(at.map(|at| (operand, at)));
        self
    }

    pub(super) fn get(&self, operand: Operand) -> Option<BufferAt<'a>> {
        let found = self.places.iter().find(|(present, _)| *present == operand)?;
        Some(found.1)
    }

    /// Whether an operand begins at a multiple of so many elements.
    pub(super) fn is_aligned(&self, problem: &Problem, operand: Operand, elements: u32) -> bool {
        let vector_bytes = u64::from(elements) * problem.element_bytes(operand);
        self.get(operand)
            .is_some_and(|at| at.offset_bytes.is_multiple_of(vector_bytes))
    }

    /// Whether all do on whose place the kernels depend.
    pub(super) fn are_aligned(&self, problem: &Problem) -> bool {
        let placed = [Operand::Query, Operand::Key, Operand::Value, Operand::Out];
        placed.into_iter().all(|operand| self.is_aligned(problem, operand, 8))
    }

    pub(super) fn validate(&self, plan: &Plan, caps: &DeviceCaps) -> Result<()> {
        let problem = plan.problem();
        for &(operand, _) in &self.places {
            if !plan.operands().contains(&operand) {
                return Err(Error::UnexpectedOperand { operand });
            }
        }
        for &operand in plan.operands() {
            let at = self.get(operand).ok_or(Error::MissingOperand { operand })?;
            validate_place(problem, caps, operand, at)?;
            if is_output(operand) {
                self.validate_apart(plan, operand, at)?;
            }
        }
        Ok(())
    }

    /// Fails if an output shares its buffer in a way that WebGPU forbids.
    fn validate_apart(&self, plan: &Plan, operand: Operand, at: BufferAt<'_>) -> Result<()> {
        let span = |operand| plan.problem().span_bytes(operand).unwrap_or(0);
        for &other in plan.operands().iter().filter(|&&other| other != operand) {
            let Some(shared) = self.get(other).filter(|shared| shared.buffer == at.buffer) else {
                continue;
            };
            let apart = at.offset_bytes + span(operand) <= shared.offset_bytes
                || shared.offset_bytes + span(other) <= at.offset_bytes;
            // No dispatch may read and write one buffer, wherever; the weights are written, then read.
            let read_too = !is_output(other) || operand == Operand::Weights || other == Operand::Weights;
            if read_too || !apart {
                return Err(Error::SharedBuffer { operand, other });
            }
        }
        Ok(())
    }
}

fn validate_place(problem: &Problem, caps: &DeviceCaps, operand: Operand, at: BufferAt<'_>) -> Result<()> {
    if !at.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Err(Error::BufferUsage {
            operand,
            expected: "STORAGE",
        });
    }
    let element_bytes = problem.element_bytes(operand);
    let alignment_bytes = match operand {
        // The caller's own functions count from the binding's beginning.
        Operand::Capture(_) => u64::from(caps.limits.storage_offset_alignment_bytes).max(element_bytes),
        _ => element_bytes,
    };
    let BufferAt { offset_bytes, .. } = at;
    if !offset_bytes.is_multiple_of(alignment_bytes) {
        return Err(Error::BufferOffset {
            operand,
            offset_bytes,
            alignment_bytes,
        });
    }
    let span = problem.extent(operand).map_or(0, |extent| extent.span()) * element_bytes;
    let end = offset_bytes
        .checked_add(span)
        .and_then(|end| end.checked_next_multiple_of(4));
    if end.is_none_or(|end| end > at.buffer.size()) {
        let actual_bytes = at.buffer.size();
        let expected_bytes = end.map_or(u64::MAX, |end| end - offset_bytes);
        return Err(Error::BufferTooSmall {
            operand,
            actual_bytes,
            offset_bytes,
            expected_bytes,
        });
    }
    Ok(())
}

fn is_output(operand: Operand) -> bool {
    matches!(
        operand,
        Operand::Out | Operand::Lse | Operand::Scores | Operand::Weights
    )
}
