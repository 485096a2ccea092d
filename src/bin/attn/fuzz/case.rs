//! One case: what is asked, of which device, in which way, and whether it should be refused.

use wgpu_attention::{AttentionDescriptor, DeviceCaps, Operand, Problem};

use super::data::{Array, Data};
use super::draw::{Draw, Stream};
use super::fault::{self, Fault};
use super::mould::{BLOCK, Mould};
use super::{request, wild};

/// Everything of a case. [`Debug`](std::fmt::Debug) of it, without the data, is what a report shows.
#[derive(Clone, Debug)]
pub struct Case {
    pub kind: Kind,
    pub descriptor: AttentionDescriptor<'static>,
    pub data: Data,
    pub caps: DeviceCaps,
    pub call: Call,
}

/// What a case is meant to be.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Right in every way: only a limit of the device may stand against it.
    Valid,
    /// Right but for these.
    Faulty(Vec<Fault>),
    /// Anything.
    Wild,
}

/// How the engine is called.
#[derive(Clone, Debug)]
pub enum Call {
    /// `Engine::attention` on host slices.
    Host,
    /// `Engine::prepare`, `bind` and `encode` on buffers.
    Bound(Bound),
}

/// Buffers of a bound call.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// One buffer for all inputs, and one for all outputs that may share one.
    pub shared: bool,
    /// How many elements lie before each operand.
    pub offset: u32,
    /// In one submission of the caller's own, or in as many as the plan advises.
    pub own_encoder: bool,
    /// Run it once more and compare bit by bit.
    pub twice: bool,
    /// What is wrong with the buffers.
    pub faults: Vec<BindFault>,
}

/// Something wrong with a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BindFault {
    Missing(Operand),
    Unexpected(Operand),
    TooSmall(Operand),
    Usage(Operand),
    Offset(Operand),
    /// The output lies in this input's buffer.
    SharedBuffer(Operand, Operand),
}

impl Case {
    /// Draws a case from the seed and its number alone.
    pub fn draw(seed: u64, number: u64, device: &DeviceCaps) -> Self {
        let mould = &Mould::new(seed, number / BLOCK);
        let mut draw = Draw::new(seed, Stream::Case, number);
        let descriptor = request::descriptor(mould, &mut draw);
        let data = match Problem::new(&descriptor) {
            Ok(problem) => Data::random(&problem, &descriptor, &mut draw),
            // The judge says that a valid case was refused.
            Err(_) => Data::default(),
        };
        let mut case = Self {
            kind: Kind::Valid,
            descriptor,
            data,
            caps: mould.lowered.apply(device),
            call: call(mould, &mut draw),
        };
        match draw.range(0, 99) {
            0..=57 => case.lengths_beyond(&mut draw),
            58..=82 => fault::plant(&mut case, &mut draw),
            _ => wild::mutate(&mut case, &mut draw),
        }
        case
    }

    /// On buffers, whose contents nobody checks, a length beyond `seqlen_k` counts as `seqlen_k`.
    fn lengths_beyond(&mut self, draw: &mut Draw) {
        if !matches!(self.call, Call::Bound(_)) || draw.chance(0.5) {
            return;
        }
        let seqlen_k = self.descriptor.shape.seqlen_k;
        if let Some(Array::U32(lengths)) = self.data.get_mut(Operand::KeyPadding) {
            for length in lengths.iter_mut().filter(|length| **length == seqlen_k) {
                *length = draw.pick(&[seqlen_k, seqlen_k + 1, u32::MAX]);
            }
        }
    }

    /// The data as the reference takes it.
    pub fn within_lengths(&self) -> Data {
        let mut data = self.data.clone();
        if let Some(Array::U32(lengths)) = data.get_mut(Operand::KeyPadding) {
            for length in lengths {
                *length = (*length).min(self.descriptor.shape.seqlen_k);
            }
        }
        data
    }

    /// The case in words, without its numbers.
    pub fn describe(&self) -> String {
        let Self {
            kind,
            descriptor,
            caps,
            call,
            data,
            ..
        } = self;
        let lengths: Vec<_> = (data.arrays.iter())
            .map(|(operand, array)| format!("{operand} {} bytes", array.bytes().len()))
            .collect();
        let contents =
            [Operand::KeyPadding, Operand::CuSeqlensQ, Operand::CuSeqlensK].map(|operand| match data.get(operand) {
                Some(Array::U32(words)) => format!("; {operand} {words:?}"),
                _ => String::new(),
            });
        format!(
            "{kind:?}\n{descriptor:?}\n{call:?}\n{:?}, {}, f16 {}, loop trips {:?}, dispatch {:e}\ndata: {}{}",
            caps.limits,
            caps.tier,
            caps.shader_f16,
            caps.max_loop_trips,
            caps.max_dispatch_flops,
            lengths.join(", "),
            contents.concat(),
        )
    }
}

fn call(mould: &Mould, draw: &mut Draw) -> Call {
    if draw.chance(0.5) {
        return Call::Host;
    }
    Call::Bound(Bound {
        shared: draw.chance(0.4),
        offset: match mould.odd_offsets {
            true => draw.pick(&[1, 2, 3, 5, 6, 7]),
            false => 4 * draw.range(0, 3),
        },
        own_encoder: draw.chance(0.5),
        twice: draw.chance(0.2),
        faults: Vec::new(),
    })
}
