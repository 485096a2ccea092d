//! How a problem is cut into dispatches: windows that fit a binding, grids that fit a dispatch, work that ends before a
//! desktop's watchdog looks, and loops that end before the driver ends them.

use std::ops::Range;

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::kernel::{Emit, Skeleton};
use crate::plan::tuning::Tile;
use crate::plan::{Lse, Pass, Runs};
use crate::problem::{Extent, KeyPadding, Problem};

/// A box of the problem: what one dispatch computes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Region {
    /// Sequences.
    pub batch: Range<u32>,
    /// Query heads.
    pub head: Range<u32>,
    /// Query rows.
    pub q: Range<u32>,
    /// Keys.
    pub kv: Range<u32>,
    /// Chunks of value channels.
    pub chunk: Range<u32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Axis {
    Batch,
    Head,
    Q,
    Kv,
    Chunk,
}

impl Region {
    /// The whole problem.
    pub(crate) fn whole(problem: &Problem, tile: &Tile) -> Self {
        let shape = problem.shape();
        Self {
            batch: 0..shape.batch,
            head: 0..shape.heads,
            q: 0..shape.seqlen_q,
            kv: 0..shape.seqlen_k,
            chunk: 0..tile.v_chunks(shape.head_dim_v),
        }
    }

    /// Rows of all heads and batches.
    pub fn rows(&self) -> u64 {
        len(&self.batch) * len(&self.head) * len(&self.q)
    }

    fn range(&self, axis: Axis) -> &Range<u32> {
        match axis {
            Axis::Batch => &self.batch,
            Axis::Head => &self.head,
            Axis::Q => &self.q,
            Axis::Kv => &self.kv,
            Axis::Chunk => &self.chunk,
        }
    }

    /// Both sides of a cut at `at`.
    fn cut(&self, axis: Axis, at: u32) -> [Region; 2] {
        let mut sides = [self.clone(), self.clone()];
        for (side, range) in sides
            .iter_mut()
            .zip([self.range(axis).start..at, at..self.range(axis).end])
        {
            match axis {
                Axis::Batch => side.batch = range,
                Axis::Head => side.head = range,
                Axis::Q => side.q = range,
                Axis::Kv => side.kv = range,
                Axis::Chunk => side.chunk = range,
            }
        }
        sides
    }
}

fn len(range: &Range<u32>) -> u64 {
    u64::from(range.end.saturating_sub(range.start))
}

/// The elements of an operand that a region touches: from the first to behind the last.
pub(crate) fn window(problem: &Problem, operand: Operand, extent: &Extent, region: &Region) -> Range<u64> {
    let group = problem.shape().group_size();
    // Which rows of a packed tensor a sequence's are only the GPU knows; a table is read here and there.
    let everything = || 0..extent.span();
    let rows_of_sequences = matches!(
        operand,
        Operand::Query | Operand::Key | Operand::Value | Operand::Out | Operand::Lse
    );
    if problem.packed().is_some() && rows_of_sequences {
        return everything();
    }
    let channels = 0..extent.sizes[3];
    let masked = region.kv.start.min(problem.masked_keys())..region.kv.end.min(problem.masked_keys());
    let axes = match operand {
        Operand::Key | Operand::Value => {
            let heads = region.head.start / group..(region.head.end - 1) / group + 1;
            [region.batch.clone(), heads, region.kv.clone(), channels]
        }
        Operand::Lse => [region.batch.clone(), region.head.clone(), 0..1, region.q.clone()],
        Operand::DropoutMask => [
            region.batch.clone(),
            region.head.clone(),
            region.q.clone(),
            region.kv.clone(),
        ],
        Operand::Scores | Operand::Weights => {
            // The first row handed out need not be row 0.
            let first = problem.rows().start;
            let rows = region.q.start.saturating_sub(first)..region.q.end.saturating_sub(first);
            [region.batch.clone(), region.head.clone(), rows, region.kv.clone()]
        }
        Operand::Mask | Operand::Bias => [region.batch.clone(), region.head.clone(), region.q.clone(), masked],
        Operand::KeyPadding if problem.key_padding() != Some(KeyPadding::Lengths) => {
            [region.batch.clone(), 0..1, 0..1, masked]
        }
        Operand::KeyPadding
        | Operand::KeyPositionIds
        | Operand::QueryPositionIds
        | Operand::AlibiSlopes
        | Operand::BlockMask
        | Operand::Capture(_)
        | Operand::CuSeqlensK
        | Operand::CuSeqlensQ
        | Operand::Sinks => return everything(),
        _ => [region.batch.clone(), region.head.clone(), region.q.clone(), channels],
    };
    let mut first = 0;
    let mut last = 0;
    for (axis, range) in axes.into_iter().enumerate() {
        // An axis of size 1 is broadcast; an empty range (no masked key in the region) keeps one element to bind.
        let end = range.end.min(extent.sizes[axis]).max(1);
        let start = range.start.min(end - 1);
        first += u64::from(start) * u64::from(extent.strides[axis]);
        last += u64::from(end - 1) * u64::from(extent.strides[axis]);
    }
    first..last + 1
}

/// An operand as a kernel binds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundOperand {
    pub(crate) operand: Operand,
    pub(crate) extent: Extent,
    pub(crate) element_bytes: u64,
}

/// What the regions of one kernel must keep to.
pub(crate) struct Bounds<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) caps: &'a DeviceCaps,
    pub(crate) tile: &'a Tile,
    /// The operands that the kernel binds, with their extents.
    pub(crate) operands: Vec<BoundOperand>,
    /// Multiply-adds, times two, of one query row and one key.
    pub(crate) flops: f64,
    /// The longest run of keys that one dispatch may loop over.
    pub(crate) max_kv: u32,
    /// The most bytes that the scores of a region, all keys of each row, may take.
    pub(crate) max_scores_bytes: Option<u64>,
    /// Whether a workgroup owns one tile of keys (scores) rather than looping over all of them.
    pub(crate) kv_in_grid: bool,
    /// Whether every region must hold all keys of its rows.
    pub(crate) whole_rows: bool,
    /// Whether a workgroup loops over the heads of its region.
    pub(crate) heads_in_loop: bool,
}

/// The most dispatches of one plan. At the quarter of a second that each may take they are four and a half hours; and a list
/// of more is a matter of memory, since a request of few bytes can ask for 2^60 scores.
const MAX_DISPATCHES: usize = 1 << 16;

/// Fails if a plan has too many dispatches.
pub(crate) fn validate_dispatches(dispatches: usize) -> Result<()> {
    if dispatches <= MAX_DISPATCHES {
        return Ok(());
    }
    Err(Error::Limit {
        what: "the work, cut into dispatches that end in time and fit the device,".into(),
        required: dispatches as u64,
        limit_name: "number of dispatches in a plan (ask for less at a time)",
        limit: MAX_DISPATCHES as u64,
    })
}

impl Bounds<'_> {
    /// Cuts `region` until every piece keeps to the bounds. Pieces of the same rows come in ascending order of keys.
    ///
    /// # Errors
    /// [`Error::Limit`] when a piece cannot be cut further, or there are too many.
    pub(crate) fn split(&self, region: &Region) -> Result<Vec<Region>> {
        let mut pieces = Vec::new();
        // The regions still to look at, the next one last: a long run of cuts must not become a deep recursion.
        let mut rest = vec![region.clone()];
        while let Some(region) = rest.pop() {
            match self.next_cut(&region)? {
                None => {
                    pieces.push(region);
                    validate_dispatches(pieces.len())?;
                }
                Some((axis, at)) => {
                    let [first, second] = region.cut(axis, at);
                    rest.extend([second, first]);
                }
            }
        }
        Ok(pieces)
    }

    /// The dispatch of a region.
    pub(crate) fn pass(&self, skeleton: Skeleton, region: Region) -> Pass {
        Pass {
            skeleton,
            resume: false,
            partial: false,
            emit: Emit::default(),
            lse: Lse::None,
            block: None,
            runs: Runs::default(),
            // next_cut has made sure that the number fits.
            workgroups: u32::try_from(self.workgroups(&region)).unwrap_or(u32::MAX),
            flops: self.flops(&region),
            region,
        }
    }

    fn flops(&self, region: &Region) -> f64 {
        region.rows() as f64 * len(&region.kv) as f64 * self.flops
    }

    /// Workgroups of a region.
    fn workgroups(&self, region: &Region) -> u64 {
        let tiles = len(&region.q).div_ceil(self.tile.tile_q.into());
        let chunks = if self.kv_in_grid {
            len(&region.kv).div_ceil(self.tile.tile_kv().into())
        } else {
            len(&region.chunk)
        };
        let heads = if self.heads_in_loop { 1 } else { len(&region.head) };
        len(&region.batch) * heads * tiles * chunks
    }

    fn next_cut(&self, region: &Region) -> Result<Option<(Axis, u32)>> {
        let limits = &self.caps.limits;
        for BoundOperand {
            operand,
            extent,
            element_bytes,
        } in &self.operands
        {
            let window = window(self.problem, *operand, extent, region);
            let bytes = (window.end - window.start) * element_bytes;
            // A window begins at an aligned offset before its first element and ends at a multiple of four bytes.
            let slack = u64::from(limits.storage_offset_alignment_bytes).max(32) + 4;
            if bytes + slack > limits.max_storage_buffer_binding_bytes {
                return match self.largest_axis(region, *operand, extent) {
                    Some(axis) => Ok(Some((axis, self.middle(region, axis)))),
                    None => Err(Error::Limit {
                        what: format!("one tile of {operand}"),
                        required: bytes + slack,
                        limit_name: "maxStorageBufferBindingSize",
                        limit: limits.max_storage_buffer_binding_bytes,
                    }),
                };
            }
        }
        if len(&region.kv) > self.max_kv.into() {
            // Not the middle: few long runs are better than many even ones.
            return Ok(Some((Axis::Kv, region.kv.start + self.max_kv)));
        }
        if let Some(most) = self.max_scores_bytes {
            let required = 4 * region.rows() * len(&region.kv);
            if required > most {
                let axis = self
                    .longest_axis(region, &[Axis::Batch, Axis::Head, Axis::Q])
                    .ok_or_else(|| Error::Limit {
                        what: format!("the scores of {} rows (Algorithm::Fused stores none)", region.rows()),
                        required,
                        limit_name: "maxStorageBufferBindingSize",
                        limit: most,
                    })?;
                return Ok(Some((axis, self.middle(region, axis))));
            }
        }
        let per_dimension = u64::from(limits.max_workgroups_per_dimension);
        let most = (per_dimension * per_dimension).min(u64::from(u32::MAX));
        let workgroups = self.workgroups(region);
        if workgroups > most {
            let axis = self.cheapest_axis(region).ok_or_else(|| Error::Limit {
                what: "one row of tiles".into(),
                required: workgroups,
                limit_name: "maxComputeWorkgroupsPerDimension",
                limit: per_dimension,
            })?;
            return Ok(Some((axis, self.middle(region, axis))));
        }
        if self.flops(region) > self.caps.max_dispatch_flops {
            // One tile is never cut, however slow.
            return Ok(self.cheapest_axis(region).map(|axis| (axis, self.middle(region, axis))));
        }
        Ok(None)
    }

    /// The axis to cut for less work: one that leaves rows whole if there is any, else the keys.
    fn cheapest_axis(&self, region: &Region) -> Option<Axis> {
        self.longest_axis(region, &[Axis::Batch, Axis::Head, Axis::Q, Axis::Chunk])
            .or_else(|| self.can_cut(region, Axis::Kv).then_some(Axis::Kv))
    }

    /// Pieces of an axis that cannot be cut further.
    fn unit(&self, region: &Region, axis: Axis) -> u32 {
        match axis {
            Axis::Batch | Axis::Chunk => 1,
            Axis::Head => {
                let group = self.problem.shape().group_size();
                if len(&region.head) > group.into() { group } else { 1 }
            }
            Axis::Q => self.tile.tile_q,
            Axis::Kv => self.tile.tile_kv(),
        }
    }

    fn can_cut(&self, region: &Region, axis: Axis) -> bool {
        !(self.whole_rows && axis == Axis::Kv) && len(region.range(axis)) > self.unit(region, axis).into()
    }

    /// Near the middle, at a whole number of units.
    fn middle(&self, region: &Region, axis: Axis) -> u32 {
        let unit = self.unit(region, axis);
        let range = region.range(axis);
        let half = (range.end - range.start) / 2;
        range.start + (half / unit * unit).max(unit)
    }

    /// The axis along which a region has the most units to give.
    fn longest_axis(&self, region: &Region, axes: &[Axis]) -> Option<Axis> {
        let units = |axis: Axis| len(region.range(axis)).div_ceil(self.unit(region, axis).into());
        axes.iter()
            .copied()
            .filter(|&axis| self.can_cut(region, axis))
            .max_by_key(|&axis| (units(axis), axis as u8))
    }

    /// The axis along which a region's window into an operand is longest.
    fn largest_axis(&self, region: &Region, operand: Operand, extent: &Extent) -> Option<Axis> {
        let reach = |axis: Axis| -> u64 {
            let [side, _] = region.cut(axis, self.middle(region, axis));
            let whole = window(self.problem, operand, extent, region);
            let half = window(self.problem, operand, extent, &side);
            (whole.end - whole.start).saturating_sub(half.end - half.start)
        };
        [Axis::Batch, Axis::Head, Axis::Q, Axis::Kv]
            .into_iter()
            .filter(|&axis| self.can_cut(region, axis))
            .map(|axis| (reach(axis), axis))
            .filter(|(reach, _)| *reach > 0)
            .max_by_key(|(reach, axis)| (*reach, std::cmp::Reverse(*axis as u8)))
            .map(|(_, axis)| axis)
    }
}
