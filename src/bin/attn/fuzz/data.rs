//! The operands of a case on the host, each by its name, right or made wrong.

use half::{bf16, f16};
use wgpu_attention::problem::Extent;
use wgpu_attention::{
    AttentionDescriptor, DType, HostInputs, HostKeyPadding, HostTensor, KeyPadding, Operand, Problem,
};

use super::draw::Draw;
use super::{mods, rope};

/// Numbers of one operand.
#[derive(Clone, Debug)]
pub enum Array {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    U32(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Array {
    /// Numbers in a storage type.
    pub fn new(dtype: DType, numbers: Vec<f32>) -> Self {
        match dtype {
            DType::F32 => Array::F32(numbers),
            DType::F16 => Array::F16(numbers.into_iter().map(f16::from_f32).collect()),
            DType::Bf16 => Array::Bf16(numbers.into_iter().map(bf16::from_f32).collect()),
        }
    }

    fn tensor(&self) -> Option<HostTensor<'_>> {
        match self {
            Array::F32(numbers) => Some(numbers.into()),
            Array::F16(numbers) => Some(numbers.into()),
            Array::Bf16(numbers) => Some(numbers.into()),
            Array::U32(_) | Array::Bytes(_) => None,
        }
    }

    fn floats(&self) -> Option<&[f32]> {
        match self {
            Array::F32(numbers) => Some(numbers),
            _ => None,
        }
    }

    fn words(&self) -> Option<&[u32]> {
        match self {
            Array::U32(words) => Some(words),
            _ => None,
        }
    }

    /// As they lie in memory.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Array::F32(numbers) => bytemuck::cast_slice(numbers),
            Array::F16(numbers) => bytemuck::cast_slice(numbers),
            Array::Bf16(numbers) => bytemuck::cast_slice(numbers),
            Array::U32(words) => bytemuck::cast_slice(words),
            Array::Bytes(bytes) => bytes,
        }
    }

    /// One number, widened; 0 for what is no floating-point number.
    pub fn at(&self, index: usize) -> f32 {
        self.tensor().map_or(0.0, |tensor| tensor.at(index))
    }

    /// Overwrites a floating-point number.
    pub fn set(&mut self, index: usize, number: f32) {
        match self {
            Array::F32(numbers) => numbers[index] = number,
            Array::F16(numbers) => numbers[index] = f16::from_f32(number),
            Array::Bf16(numbers) => numbers[index] = bf16::from_f32(number),
            Array::U32(_) | Array::Bytes(_) => {}
        }
    }

    /// One more at the end, or one less.
    pub fn resize(&mut self, longer: bool) {
        fn change<T: Copy + Default>(numbers: &mut Vec<T>, longer: bool) {
            if longer {
                numbers.push(T::default());
            } else {
                numbers.pop();
            }
        }
        match self {
            Array::F32(numbers) => change(numbers, longer),
            Array::F16(numbers) => change(numbers, longer),
            Array::Bf16(numbers) => change(numbers, longer),
            Array::U32(words) => change(words, longer),
            Array::Bytes(bytes) => change(bytes, longer),
        }
    }
}

/// All operands that a case gives.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub arrays: Vec<(Operand, Array)>,
}

impl Data {
    /// What a problem asks for. Gaps between elements hold NaN, and so does whatever lies behind a length, so that reading
    /// one shows.
    pub fn random(problem: &Problem, descriptor: &AttentionDescriptor<'_>, draw: &mut Draw) -> Self {
        let mut data = Self::default();
        for operand in problem.operands() {
            if let (Some(array), Some(_)) = (array(problem, operand, draw), problem.extent(operand)) {
                data.arrays.push((operand, array));
            }
        }
        if descriptor.mods.captures == mods::CAPTURES {
            for (operand, array) in &mut data.arrays {
                if let Operand::Capture(index) = operand {
                    *array = Array::Bytes(mods::capture_bytes((*index).into()));
                }
            }
        }
        data.specials(problem, draw);
        data.poison_behind_lengths(problem);
        data
    }

    pub fn get(&self, operand: Operand) -> Option<&Array> {
        let found = self.arrays.iter().find(|(present, _)| *present == operand)?;
        Some(&found.1)
    }

    pub fn get_mut(&mut self, operand: Operand) -> Option<&mut Array> {
        let found = self.arrays.iter_mut().find(|(present, _)| *present == operand)?;
        Some(&mut found.1)
    }

    /// Numbers that are not as the others: NaN, infinities, zeros, large ones.
    fn specials(&mut self, problem: &Problem, draw: &mut Draw) {
        let tensors = [Operand::Query, Operand::Key, Operand::Value];
        if draw.chance(0.1) {
            let operand = draw.pick(&tensors);
            let special = match operand {
                Operand::Value => draw.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
                _ => f32::NAN,
            };
            let count = draw.range(1, 4);
            self.sprinkle(problem, operand, special, count, draw);
        }
        if draw.chance(0.1) {
            let operand = draw.pick(&tensors);
            let factor = draw.pick(&[0.0, 1e-3, 30.0]);
            if let (Some(extent), Some(array)) = (problem.extent(operand), self.get_mut(operand)) {
                for_each_element(&extent, |index, _| array.set(index, factor * array.at(index)));
            }
        }
    }

    fn sprinkle(&mut self, problem: &Problem, operand: Operand, number: f32, count: u32, draw: &mut Draw) {
        let (Some(extent), Some(array)) = (problem.extent(operand), self.get_mut(operand)) else {
            return;
        };
        for _ in 0..count {
            let position = extent.sizes.map(|size| draw.range(0, size - 1));
            array.set(extent.offset(position) as usize, number);
        }
    }

    fn poison_behind_lengths(&mut self, problem: &Problem) {
        if problem.key_padding() != Some(KeyPadding::Lengths) {
            return;
        }
        let Some(lengths) = self
            .get(Operand::KeyPadding)
            .and_then(Array::words)
            .map(<[u32]>::to_vec)
        else {
            return;
        };
        for operand in [Operand::Key, Operand::Value] {
            let (Some(extent), Some(array)) = (problem.extent(operand), self.get_mut(operand)) else {
                continue;
            };
            // Of what several sequences share, the longest one counts.
            let mut read = vec![false; array.bytes().len()];
            for_each_element(&extent, |index, [batch, _, row, _]| {
                read[index] |= row < lengths[batch as usize]
            });
            for_each_element(&extent, |index, _| {
                if !read[index] {
                    array.set(index, f32::NAN);
                }
            });
        }
    }

    /// The operands as the library takes them; whatever is of the wrong kind for its place is left out.
    pub fn host<'a>(&'a self, captures: &'a [&'a [u8]]) -> HostInputs<'a> {
        let tensor = |operand| self.get(operand).and_then(Array::tensor);
        let floats = |operand| self.get(operand).and_then(Array::floats);
        let words = |operand| self.get(operand).and_then(Array::words);
        let bytes = |operand| self.get(operand).map(Array::bytes);
        HostInputs {
            query: tensor(Operand::Query).unwrap_or_default(),
            key: tensor(Operand::Key).unwrap_or_default(),
            value: tensor(Operand::Value).unwrap_or_default(),
            mask: bytes(Operand::Mask),
            bias: tensor(Operand::Bias),
            key_padding: self.get(Operand::KeyPadding).and_then(|padding| match padding {
                Array::F32(numbers) => Some(HostKeyPadding::Additive(numbers)),
                Array::Bytes(bytes) => Some(HostKeyPadding::Boolean(bytes)),
                Array::U32(lengths) => Some(HostKeyPadding::Lengths(lengths)),
                Array::F16(_) | Array::Bf16(_) => None,
            }),
            alibi_slopes: floats(Operand::AlibiSlopes),
            sinks: floats(Operand::Sinks),
            dropout_mask: bytes(Operand::DropoutMask),
            block_mask: words(Operand::BlockMask),
            cu_seqlens_q: words(Operand::CuSeqlensQ),
            cu_seqlens_k: words(Operand::CuSeqlensK),
            query_position_ids: words(Operand::QueryPositionIds).map(bytemuck::cast_slice),
            key_position_ids: words(Operand::KeyPositionIds).map(bytemuck::cast_slice),
            captures,
        }
    }

    /// The captures as [`host`](Self::host) takes them.
    pub fn captures(&self) -> Vec<&[u8]> {
        let captures = self
            .arrays
            .iter()
            .filter(|(operand, _)| matches!(operand, Operand::Capture(_)));
        captures.map(|(_, array)| array.bytes()).collect()
    }
}

/// Random contents of an operand; `None` of an output.
fn array(problem: &Problem, operand: Operand, draw: &mut Draw) -> Option<Array> {
    let extent = problem.extent(operand)?;
    let shape = problem.shape();
    Some(match operand {
        Operand::Query | Operand::Key | Operand::Value => {
            Array::new(problem.dtype(operand), floats(draw, &extent, 0.0))
        }
        Operand::Bias => Array::new(problem.dtype(operand), floats(draw, &extent, 0.1)),
        Operand::Mask | Operand::DropoutMask => Array::Bytes(bytes(draw, &extent)),
        Operand::KeyPadding => match problem.key_padding()? {
            KeyPadding::Additive => Array::F32(floats(draw, &extent, 0.2)),
            KeyPadding::Boolean => Array::Bytes(bytes(draw, &extent)),
            KeyPadding::Lengths => Array::U32((0..shape.batch).map(|_| draw.range(0, shape.seqlen_k)).collect()),
        },
        Operand::AlibiSlopes => Array::F32(floats(draw, &extent, 0.0)),
        Operand::Sinks => Array::F32(floats(draw, &extent, 0.2)),
        Operand::BlockMask => Array::U32((0..extent.span()).map(|_| draw.range(0, 2)).collect()),
        Operand::CuSeqlensQ => Array::U32(cu_seqlens(
            draw,
            shape.batch,
            problem.packed()?.tokens_q,
            shape.seqlen_q,
        )),
        Operand::CuSeqlensK => Array::U32(cu_seqlens(
            draw,
            shape.batch,
            problem.packed()?.tokens_k,
            shape.seqlen_k,
        )),
        Operand::QueryPositionIds | Operand::KeyPositionIds => {
            Array::U32((0..extent.span()).map(|_| rope::position(draw) as u32).collect())
        }
        Operand::Capture(_) => Array::Bytes(vec![0; 4 * extent.span() as usize]),
        _ => return None,
    })
}

fn floats(draw: &mut Draw, extent: &Extent, closed: f64) -> Vec<f32> {
    let mut numbers = vec![f32::NAN; extent.span() as usize];
    for_each_element(extent, |index, _| {
        numbers[index] = if closed > 0.0 && draw.chance(closed) {
            f32::NEG_INFINITY
        } else {
            draw.normal()
        };
    });
    numbers
}

fn bytes(draw: &mut Draw, extent: &Extent) -> Vec<u8> {
    let mut bytes = vec![0; extent.span() as usize];
    let open = draw.pick(&[0.1, 0.7, 0.95]);
    for_each_element(extent, |index, [_, _, row, _]| {
        // Some rows are closed altogether.
        let closed_row = extent.sizes[2] > 2 && row == 1;
        bytes[index] = if draw.chance(open) && !closed_row {
            draw.pick(&[1, 1, 2, 128, 255])
        } else {
            0
        };
    });
    bytes
}

/// Where sequences begin, of random lengths that add up to `tokens`, some of them 0. There are no more tokens than fit.
fn cu_seqlens(draw: &mut Draw, batch: u32, tokens: u32, longest: u32) -> Vec<u32> {
    let mut bounds = vec![0];
    for done in 1..=batch {
        let before = bounds[bounds.len() - 1];
        // What is left must fit into the sequences that are left.
        let least = (tokens - before).saturating_sub((batch - done).saturating_mul(longest));
        let most = longest.min(tokens - before);
        let least_will_do = done == batch || draw.chance(0.2);
        let length = if least_will_do { least } else { draw.range(least, most) };
        bounds.push(before + length);
    }
    bounds
}

/// Calls `visit(offset, position)` for every element of an operand.
pub fn for_each_element(extent: &Extent, mut visit: impl FnMut(usize, [u32; 4])) {
    for a in 0..extent.sizes[0] {
        for b in 0..extent.sizes[1] {
            for c in 0..extent.sizes[2] {
                for d in 0..extent.sizes[3] {
                    visit(extent.offset([a, b, c, d]) as usize, [a, b, c, d]);
                }
            }
        }
    }
}
