//! Which dispatches a rotation takes: pure, from the problem and what the device can do.

use std::ops::Range;

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::kernel::KernelConfig;
use crate::kernel::operations::{self, RopeAngleSource, RopeKernel, RopeStore, THREADS};
use crate::kernel::params::RopeParams;
use crate::kernel::source::Access;
use crate::operation::{
    OperandUse, Operation, OperationParams, OperationPass, Source, Window, max_elements, window_elements,
};
use crate::problem::DType;
use crate::rope::{RopePairing, RopePositions, RopeProblem};

/// The bindings of `shaders/rope.wgsl` and its hooks.
const BINDINGS: [(u32, Operand); 6] = [
    (1, Operand::Out),
    (2, Operand::X),
    (3, Operand::PositionIds),
    (4, Operand::Frequencies),
    (5, Operand::Cos),
    (6, Operand::Sin),
];

/// The most heads that an invocation rotates by the cos and sin that it has.
const MAX_UNIT_HEADS: u32 = 8;

/// Units enough to keep a large device busy: only beyond them do heads share cos and sin.
const ENOUGH_UNITS: u64 = 1 << 16;

/// Plans a rotation. `out_begins_odd`: out, of a half type, begins in the middle of a word.
pub(crate) fn plan(problem: &RopeProblem, caps: &DeviceCaps, out_begins_odd: bool) -> Result<Operation<RopeParams>> {
    let operands = BINDINGS
        .into_iter()
        .filter_map(|(_, operand)| operand_use(problem, operand));
    let store = store(problem, out_begins_odd);
    let kernel = kernel(problem, store);
    let pass = |region: Region| {
        let params = params(problem, &region, store);
        let window = |(binding, operand)| {
            Some(Window {
                binding,
                source: Source::Operand(operand),
                elements: Reach::new(problem, operand)?.window(&region),
            })
        };
        OperationPass {
            kernel: kernel.clone(),
            params,
            workgroups: params.units.div_ceil(THREADS),
            windows: BINDINGS.into_iter().filter_map(window).collect(),
            elements: region.elements(problem),
            wide: None,
        }
    };
    Ok(Operation {
        label: "rope",
        operands: operands.collect(),
        workspace_bytes: Vec::new(),
        passes: regions(problem, caps)?.into_iter().map(pass).collect(),
    })
}

impl OperationParams for RopeParams {
    fn set_grid_x(&mut self, grid_x: u32) {
        self.grid_x = grid_x;
    }

    fn set_offset(&mut self, binding: u32, offset: u32) {
        match binding {
            // In place, out is x too. An x of its own is set after it.
            1 => (self.out_offset, self.x_offset) = (offset, offset),
            2 => self.x_offset = offset,
            3 => self.ids_offset = offset,
            5 => self.cos_offset = offset,
            6 => self.sin_offset = offset,
            // The frequencies are bound from their beginning.
            _ => {}
        }
    }
}

/// The steps of `rope/angle_frequency.wgsl`: what each pair turns by from one position to the next, in 2^-64 turns, low word
/// first. Whole turns are left out, which positions, being whole numbers, do not miss.
pub(crate) fn steps(inv_freq: &[f64]) -> Vec<[u32; 2]> {
    let step = |frequency: &f64| {
        let turns = frequency / std::f64::consts::TAU;
        // A product of 2^64 saturates to 2^-64 turns less.
        let step = ((turns - turns.floor()) * 2f64.powi(64)) as u64;
        [step as u32, (step >> 32) as u32]
    };
    inv_freq.iter().map(step).collect()
}

fn operand_use(problem: &RopeProblem, operand: Operand) -> Option<OperandUse> {
    let elements = match operand {
        Operand::Frequencies => problem.frequencies()?.inv_freq().len() as u64,
        _ => problem.extent(operand)?.span(),
    };
    Some(OperandUse {
        operand,
        element_bytes: element_bytes(problem, operand),
        elements,
        access: match operand {
            Operand::Out => Access::ReadWrite,
            _ => Access::Read,
        },
    })
}

fn element_bytes(problem: &RopeProblem, operand: Operand) -> u64 {
    match operand {
        Operand::Frequencies => 8,
        _ => problem.element_bytes(operand),
    }
}

fn kernel(problem: &RopeProblem, store: RopeStore) -> KernelConfig {
    let ids = problem.extent(Operand::PositionIds).is_some();
    let dtypes = problem.dtypes();
    let dtype = dtypes.cache;
    operations::rope(&RopeKernel {
        x: (!problem.in_place()).then_some(dtypes.x),
        out: dtypes.out,
        store,
        interleaved: problem.pairing() == RopePairing::Interleaved,
        angles: match (problem.frequencies(), problem.max_positions()) {
            (Some(_), _) => RopeAngleSource::Frequencies { ids },
            (None, Some(_)) => RopeAngleSource::CacheByPosition { dtype, ids },
            (None, None) => RopeAngleSource::CacheByRow { dtype },
        },
    })
}

/// How an invocation writes its pairs: whole words wherever it can.
fn store(problem: &RopeProblem, out_begins_odd: bool) -> RopeStore {
    let [.., head_dim] = problem.sizes();
    let strides = problem.extent(Operand::Out).map_or([1; 4], |extent| extent.strides);
    let whole_words =
        !out_begins_odd && head_dim.is_multiple_of(2) && strides[..3].iter().all(|stride| stride.is_multiple_of(2));
    match (problem.dtypes().out, problem.pairing()) {
        (DType::F32, _) => RopeStore::Each,
        (_, RopePairing::Interleaved) if whole_words => RopeStore::Adjacent,
        (_, RopePairing::HalfSplit) if whole_words && problem.rotary_dim().is_multiple_of(4) => RopeStore::Columns,
        _ => RopeStore::Halves,
    }
}

/// The sequences, heads and rows of one dispatch.
#[derive(Clone, Debug)]
struct Region {
    /// `[batch, head, row]`.
    ranges: [Range<u32>; 3],
}

impl Region {
    fn sizes(&self) -> [u64; 3] {
        self.ranges.each_ref().map(|range| u64::from(range.end - range.start))
    }

    /// Elements loaded and stored.
    fn elements(&self, problem: &RopeProblem) -> u64 {
        2 * self.sizes().into_iter().product::<u64>() * u64::from(problem.sizes()[3])
    }

    fn halves(&self, axis: usize) -> [Self; 2] {
        let Range { start, end } = self.ranges[axis];
        let middle = start + (end - start) / 2;
        let part = |range| {
            let mut part = self.clone();
            part.ranges[axis] = range;
            part
        };
        [part(start..middle), part(middle..end)]
    }
}

/// How the elements of an operand that a region touches follow from it.
struct Reach {
    first: u64,
    /// By `[batch, head, row]`.
    strides: [u64; 3],
    /// Elements from a row's first to its last, both counted.
    row_elements: u64,
}

impl Reach {
    /// `None` for an operand that the problem does not have.
    fn new(problem: &RopeProblem, operand: Operand) -> Option<Self> {
        let used = operand_use(problem, operand)?;
        let pairs = u64::from(problem.rotary_dim() / 2);
        let strides = problem
            .extent(operand)
            .map_or([0; 4], |extent| extent.strides.map(u64::from));
        let [batch, head, row, channel] = strides;
        let reach = |first, strides, row_elements| Self {
            first,
            strides,
            row_elements,
        };
        Some(match (operand, problem.max_positions(), problem.positions()) {
            (Operand::X | Operand::Out, ..) => reach(0, [batch, head, row], problem.sizes()[3].into()),
            (Operand::PositionIds, ..) => reach(0, [batch, 0, channel], 1),
            (Operand::Cos | Operand::Sin, None, _) => reach(0, [batch, 0, row], pairs),
            // Validated not to be negative.
            (Operand::Cos | Operand::Sin, Some(_), RopePositions::Offset(offset)) => {
                reach(u64::from(offset.unsigned_abs()) * pairs, [0, 0, pairs], pairs)
            }
            _ => reach(0, [0; 3], used.elements),
        })
    }

    fn window(&self, region: &Region) -> Range<u64> {
        let at = |index: [u64; 3]| {
            let axes = index.into_iter().zip(self.strides);
            self.first + axes.map(|(index, stride)| index * stride).sum::<u64>()
        };
        let begin = region.ranges.each_ref().map(|range| u64::from(range.start));
        let last = region.ranges.each_ref().map(|range| u64::from(range.end - 1));
        at(begin)..at(last) + self.row_elements
    }

    /// The axis along which the region spans the most of the operand; `None` if no cut makes it smaller.
    fn widest_axis(&self, region: &Region) -> Option<usize> {
        let sizes = region.sizes();
        let span = |axis: &usize| (sizes[*axis] - 1) * self.strides[*axis];
        (0..3).filter(|axis| span(axis) > 0).max_by_key(span)
    }
}

/// Cuts the problem until each piece keeps to the limits of a binding and of a dispatch.
fn regions(problem: &RopeProblem, caps: &DeviceCaps) -> Result<Vec<Region>> {
    let [batch, heads, seqlen, _] = problem.sizes();
    let operands = || BINDINGS.into_iter().map(|(_, operand)| operand);
    let mut waiting = vec![Region {
        ranges: [0..batch, 0..heads, 0..seqlen],
    }];
    let mut done = Vec::new();
    while let Some(region) = waiting.pop() {
        let mut cut = None;
        for operand in operands() {
            let Some(reach) = Reach::new(problem, operand) else {
                continue;
            };
            let window = reach.window(&region);
            let bytes = element_bytes(problem, operand);
            if window.end - window.start > window_elements(caps, bytes) {
                let axis = reach.widest_axis(&region).ok_or_else(|| Error::Limit {
                    what: format!("what one dispatch reads of {operand}"),
                    required: (window.end - window.start) * bytes,
                    limit_name: "maxStorageBufferBindingSize",
                    limit: caps.limits.max_storage_buffer_binding_bytes,
                })?;
                cut = Some(axis);
                break;
            }
        }
        if cut.is_none() && region.elements(problem) > max_elements(caps) {
            cut = Reach::new(problem, Operand::Out).and_then(|reach| reach.widest_axis(&region));
        }
        match cut {
            None => done.push(region),
            Some(axis) => {
                let [first, second] = region.halves(axis);
                waiting.extend([second, first]);
            }
        }
    }
    Ok(done)
}

fn params(problem: &RopeProblem, region: &Region, store: RopeStore) -> RopeParams {
    let [.., head_dim] = problem.sizes();
    let [batches, heads, rows] = region.sizes();
    let row_units = u64::from(head_dim.div_ceil(2).div_ceil(store.pairs()));
    let units = |unit_heads: u32| row_units * rows * batches * heads.div_ceil(unit_heads.into());
    let mut unit_heads = MAX_UNIT_HEADS;
    while unit_heads > 1 && units(unit_heads) < ENOUGH_UNITS {
        unit_heads /= 2;
    }
    let strides = |operand| problem.extent(operand).map_or([0; 4], |extent| extent.strides);
    let out = strides(Operand::Out);
    let x = match problem.in_place() {
        true => out,
        false => strides(Operand::X),
    };
    // Each is at most the number of elements, which 32 bits hold.
    RopeParams {
        units: units(unit_heads) as u32,
        batch_begin: region.ranges[0].start,
        head_begin: region.ranges[1].start,
        head_end: region.ranges[1].end,
        row_begin: region.ranges[2].start,
        row_count: rows as u32,
        row_units: row_units as u32,
        unit_heads,
        head_groups: (heads as u32).div_ceil(unit_heads),
        head_dim,
        rotary_pairs: problem.rotary_dim() / 2,
        position: match problem.positions() {
            RopePositions::Offset(offset) => offset,
            RopePositions::Ids | RopePositions::SharedIds => 0,
        },
        max_positions: problem.max_positions().unwrap_or(0),
        attention_scaling: problem
            .frequencies()
            .map_or(1.0, |frequencies| frequencies.attention_scaling() as f32),
        x_batch: x[0],
        x_head: x[1],
        x_row: x[2],
        out_batch: out[0],
        out_head: out[1],
        out_row: out[2],
        ids_batch: strides(Operand::PositionIds)[0],
        cache_batch: strides(Operand::Cos)[0],
        ..RopeParams::default()
    }
}
