//! One case on the engine, in the way that it asks for.

use wgpu_attention::problem::Extent;
use wgpu_attention::{
    Attention, AttentionOutput, BoundAttention, BufferAt, Engine, Error, Inputs, Operand, OutputBuffers, Problem,
};

use super::case::{BindFault, Bound, Call, Case};
use super::data::for_each_element;

/// What outputs hold before a run: a NaN of a pattern that no computation makes, as two halves too.
const POISON: u32 = 0x7fdd_7fdd;

/// What a call computed: the elements of each output, as they lie in memory, gaps included.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub out: Vec<f32>,
    pub lse: Option<Vec<f32>>,
    pub weights: Option<Vec<f32>>,
    pub scores: Option<Vec<f32>>,
}

/// How a call went wrong.
pub enum Trouble {
    /// The library said so.
    Refused(Error),
    /// It did something that it must not do.
    Fault(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Refused(error)
    }
}

/// Runs a case.
pub fn run(engine: &Engine, case: &Case) -> Result<Answer, Trouble> {
    match &case.call {
        Call::Host => {
            let captures = case.data.captures();
            let AttentionOutput {
                out,
                lse,
                weights,
                scores,
            } = engine.attention(&case.descriptor, &case.data.host(&captures))?;
            Ok(Answer {
                out,
                lse,
                weights,
                scores,
            })
        }
        Call::Bound(bound) => {
            let attention = engine.prepare(&case.descriptor)?;
            let buffers = Buffers::new(engine, case, bound, attention.plan().problem())?;
            buffers.run(engine, &attention, bound)
        }
    }
}

/// Where an operand lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    operand: Operand,
    buffer: usize,
    offset_bytes: u64,
}

/// The buffers of a bound call.
struct Buffers<'a> {
    problem: &'a Problem,
    buffers: Vec<wgpu::Buffer>,
    places: Vec<Place>,
    outputs: Vec<usize>,
    tensors: Vec<wgpu_attention::Tensor>,
}

impl<'a> Buffers<'a> {
    fn new(engine: &Engine, case: &Case, bound: &Bound, problem: &'a Problem) -> Result<Self, Trouble> {
        let mut layout = Layout {
            engine,
            problem,
            bound,
            contents: Vec::new(),
            places: Vec::new(),
        };
        for (operand, array) in &case.data.arrays {
            layout.place(*operand, Contents::Given(array.bytes()), bound.shared);
        }
        let inputs = layout.contents.len();
        for operand in [Operand::Out, Operand::Lse, Operand::Scores, Operand::Weights] {
            if let Some(bytes) = problem.span_bytes(operand) {
                // The weights are read back, so they share with none.
                let shared = bound.shared && layout.contents.len() > inputs && operand != Operand::Weights;
                layout.place(operand, Contents::Poison(bytes), shared);
            }
        }
        let mut tensors = Vec::new();
        for contents in &layout.contents {
            tensors.push(engine.upload_bytes(contents)?);
        }
        let mut buffers = Self {
            problem,
            buffers: tensors.iter().map(|tensor| tensor.buffer().clone()).collect(),
            places: layout.places,
            outputs: (inputs..layout.contents.len()).collect(),
            tensors,
        };
        for fault in &bound.faults {
            buffers.plant(engine, *fault);
        }
        Ok(buffers)
    }

    /// Makes something wrong.
    fn plant(&mut self, engine: &Engine, fault: BindFault) {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let span = |operand| self.problem.span_bytes(operand).unwrap_or(4);
        let buffer = |size: u64, usage| {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let alignment = u64::from(engine.caps().limits.storage_offset_alignment_bytes);
        match fault {
            BindFault::Missing(operand) => self.places.retain(|place| place.operand != operand),
            BindFault::Unexpected(operand) => {
                let buffer = buffer(1 << 16, usage);
                self.put(operand, buffer, 0);
            }
            BindFault::TooSmall(operand) => {
                let buffer = buffer(span(operand), usage);
                let capture = matches!(operand, Operand::Capture(_));
                self.put(operand, buffer, if capture { alignment } else { 4 });
            }
            BindFault::Usage(operand) => {
                let buffer = buffer(span(operand), wgpu::BufferUsages::COPY_DST);
                self.put(operand, buffer, 0);
            }
            BindFault::Offset(operand) => {
                let buffer = buffer(span(operand) + 4, usage);
                self.put(operand, buffer, 1);
            }
            BindFault::SharedBuffer(output, input) => {
                let begin = span(input).next_multiple_of(alignment);
                let buffer = buffer(begin + span(output), usage);
                self.put(input, buffer.clone(), 0);
                self.put(output, buffer, begin);
            }
        }
    }

    /// Moves an operand into a buffer.
    fn put(&mut self, operand: Operand, buffer: wgpu::Buffer, offset_bytes: u64) {
        let place = Place {
            operand,
            buffer: self.buffers.len(),
            offset_bytes,
        };
        match self.places.iter_mut().find(|place| place.operand == operand) {
            Some(old) => *old = place,
            None => self.places.push(place),
        }
        self.buffers.push(buffer);
    }

    fn at(&self, operand: Operand) -> Option<BufferAt<'_>> {
        let place = self.places.iter().find(|place| place.operand == operand)?;
        Some(BufferAt {
            buffer: &self.buffers[place.buffer],
            offset_bytes: place.offset_bytes,
        })
    }

    fn run(&self, engine: &Engine, attention: &Attention, bound: &Bound) -> Result<Answer, Trouble> {
        let needed = |operand| self.at(operand).ok_or(Error::MissingOperand { operand });
        let captures = (0..)
            .map_while(|index| self.at(Operand::Capture(index)))
            .collect::<Vec<_>>();
        let inputs = Inputs {
            mask: self.at(Operand::Mask),
            bias: self.at(Operand::Bias),
            key_padding: self.at(Operand::KeyPadding),
            alibi_slopes: self.at(Operand::AlibiSlopes),
            sinks: self.at(Operand::Sinks),
            dropout_mask: self.at(Operand::DropoutMask),
            block_mask: self.at(Operand::BlockMask),
            cu_seqlens_q: self.at(Operand::CuSeqlensQ),
            cu_seqlens_k: self.at(Operand::CuSeqlensK),
            query_position_ids: self.at(Operand::QueryPositionIds),
            key_position_ids: self.at(Operand::KeyPositionIds),
            captures: &captures,
            ..Inputs::new(needed(Operand::Query)?, needed(Operand::Key)?, needed(Operand::Value)?)
        };
        let outputs = OutputBuffers {
            out: needed(Operand::Out)?,
            lse: self.at(Operand::Lse),
            weights: self.at(Operand::Weights),
            scores: self.at(Operand::Scores),
        };
        let call = attention.bind(&inputs, &outputs)?;
        submit(engine, &call, bound)?;
        let first = self.read_outputs(engine)?;
        if bound.twice {
            submit(engine, &call, bound)?;
            if self.read_outputs(engine)? != first {
                return Err(Trouble::Fault("two runs differ".into()));
            }
        }
        self.answer(first)
    }

    /// The contents of the buffers of outputs.
    fn read_outputs(&self, engine: &Engine) -> Result<Vec<Vec<u8>>, Trouble> {
        let read = |&index: &usize| -> Result<Vec<u8>, Trouble> {
            let words = engine.read(&self.tensors[index])?;
            Ok(bytemuck::cast_slice(&words).to_vec())
        };
        self.outputs.iter().map(read).collect()
    }

    /// The outputs' elements; what lies between and around them must be as it was.
    fn answer(&self, contents: Vec<Vec<u8>>) -> Result<Answer, Trouble> {
        let mut untouched = contents.clone();
        let mut elements = |operand: Operand| -> Option<Vec<f32>> {
            let place = self.places.iter().find(|place| place.operand == operand)?;
            let extent = self.problem.extent(operand)?;
            let index = self.outputs.iter().position(|&output| output == place.buffer)?;
            let begin = place.offset_bytes as usize;
            self.erase(&mut untouched[index], operand, &extent, begin);
            let size = self.problem.element_bytes(operand) as usize;
            let end = begin + extent.span() as usize * size;
            Some(self.problem.dtype(operand).widen(&contents[index][begin..end]))
        };
        let answer = Answer {
            out: elements(Operand::Out).unwrap_or_default(),
            lse: elements(Operand::Lse),
            weights: elements(Operand::Weights),
            scores: elements(Operand::Scores),
        };
        let poison = POISON.to_le_bytes();
        for (buffer, bytes) in untouched.iter().enumerate() {
            if let Some(at) = bytes
                .iter()
                .zip(poison.iter().cycle())
                .position(|(got, want)| got != want)
            {
                return Err(Trouble::Fault(format!(
                    "wrote beside its outputs: byte {at} of output buffer {buffer}, of {}",
                    bytes.len()
                )));
            }
        }
        Ok(answer)
    }

    /// Puts poison over an output's elements.
    fn erase(&self, bytes: &mut [u8], operand: Operand, extent: &Extent, begin: usize) {
        let size = self.problem.element_bytes(operand) as usize;
        let poison = POISON.to_le_bytes();
        for_each_element(extent, |index, _| {
            for (at, byte) in (begin + index * size..).zip(&mut bytes[begin + index * size..][..size]) {
                *byte = poison[at % 4];
            }
        });
    }
}

/// What an operand's place holds.
enum Contents<'a> {
    Given(&'a [u8]),
    /// So many bytes, and a little behind them.
    Poison(u64),
}

/// Lays operands out in buffers.
struct Layout<'a> {
    engine: &'a Engine,
    problem: &'a Problem,
    bound: &'a Bound,
    contents: Vec<Vec<u8>>,
    places: Vec<Place>,
}

impl Layout<'_> {
    /// Puts an operand behind what its buffer holds so far.
    fn place(&mut self, operand: Operand, own: Contents<'_>, shared: bool) {
        if !shared || self.contents.is_empty() {
            self.contents.push(Vec::new());
        }
        let buffer = self.contents.len() - 1;
        let contents = &mut self.contents[buffer];
        let alignment = self.engine.caps().limits.storage_offset_alignment_bytes as usize;
        let begin = match operand {
            Operand::Capture(_) => contents.len().next_multiple_of(alignment),
            _ => {
                let element_bytes = self.problem.element_bytes(operand) as usize;
                contents.len().next_multiple_of(16) + self.bound.offset as usize * element_bytes
            }
        };
        match own {
            Contents::Given(bytes) => {
                contents.resize(begin, 0xff);
                contents.extend(bytes);
                contents.resize(contents.len().next_multiple_of(4), 0xff);
            }
            Contents::Poison(bytes) => {
                let end = (begin + bytes as usize).next_multiple_of(4) + 16;
                contents.extend((contents.len()..end).map(|at| POISON.to_le_bytes()[at % 4]));
            }
        }
        self.places.push(Place {
            operand,
            buffer,
            offset_bytes: begin as u64,
        });
    }
}

fn submit(engine: &Engine, call: &BoundAttention, bound: &Bound) -> Result<(), Trouble> {
    if !bound.own_encoder {
        return Ok(engine.run(call)?);
    }
    let mut encoder = engine
        .device()
        .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    call.encode(&mut encoder);
    engine.queue().submit([encoder.finish()]);
    Ok(engine.wait()?)
}
