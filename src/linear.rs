//! A linear layer, `y = x Wᵀ + b`: what queries, keys and values are projected with before they are rotated and attended to.

use crate::encode::{Binder, BoundAttention, Operands};
use crate::engine::Engine;
use crate::error::{Error, Operand, Result};
use crate::plan::Plan;
use crate::problem::{Linear as Sizes, Problem};
use crate::readback::Wait;
use crate::tensor::{BufferAt, Tensor};

/// A request for `out = x weightᵀ + bias`, in `f32`, everything contiguous: PyTorch's `nn.Linear`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LinearDescriptor {
    /// Rows of x and out: all leading axes together.
    pub rows: u32,
    /// Channels of x.
    pub in_features: u32,
    /// Channels of out.
    pub out_features: u32,
    /// Whether there is a bias.
    pub bias: bool,
}

impl LinearDescriptor {
    /// Without a bias.
    pub const fn new(rows: u32, in_features: u32, out_features: u32) -> Self {
        Self {
            rows,
            in_features,
            out_features,
            bias: false,
        }
    }

    fn validate(&self) -> Result<()> {
        for (dimension, size) in [
            ("rows", self.rows),
            ("in_features", self.in_features),
            ("out_features", self.out_features),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { dimension });
            }
        }
        Ok(())
    }

    /// Elements of an operand; `None` for one that the layer does not have.
    fn elements(&self, operand: Operand) -> Option<u64> {
        let [rows, in_features, out_features] = [self.rows, self.in_features, self.out_features].map(u64::from);
        match operand {
            Operand::X => Some(rows * in_features),
            Operand::Projection => Some(out_features * in_features),
            Operand::Bias => self.bias.then_some(out_features),
            Operand::Out => Some(rows * out_features),
            _ => None,
        }
    }
}

/// Host slices for one call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinearHostInputs<'a> {
    /// `[rows, in_features]`.
    pub x: &'a [f32],
    /// `[out_features, in_features]`, as PyTorch stores it.
    pub weight: &'a [f32],
    /// `[out_features]`, if the descriptor says so.
    pub bias: Option<&'a [f32]>,
}

impl LinearHostInputs<'_> {
    /// Checks that exactly the operands that the descriptor names are here, each of its length.
    pub fn validate(&self, descriptor: &LinearDescriptor) -> Result<()> {
        descriptor.validate()?;
        for (operand, len) in [
            (Operand::X, Some(self.x.len())),
            (Operand::Projection, Some(self.weight.len())),
            (Operand::Bias, self.bias.map(<[f32]>::len)),
        ] {
            match (descriptor.elements(operand), len) {
                (None, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
                (Some(_), None) => return Err(Error::MissingOperand { operand }),
                (Some(expected), Some(actual)) if actual as u64 != expected => {
                    return Err(Error::Length {
                        operand,
                        actual: actual as u64,
                        expected,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The operands that a linear layer reads, `f32`.
#[derive(Clone, Copy, Debug)]
pub struct LinearInputs<'a> {
    /// `[rows, in_features]`.
    pub x: BufferAt<'a>,
    /// `[out_features, in_features]`.
    pub weight: BufferAt<'a>,
    /// `[out_features]`, if the descriptor says so.
    pub bias: Option<BufferAt<'a>>,
}

impl<'a> LinearInputs<'a> {
    /// Without a bias.
    pub fn new(x: impl Into<BufferAt<'a>>, weight: impl Into<BufferAt<'a>>) -> Self {
        Self {
            x: x.into(),
            weight: weight.into(),
            bias: None,
        }
    }
}

/// A linear layer that is planned and compiled. Made by [`Engine::prepare_linear`]; good for any number of runs and weights.
#[derive(Clone, Debug)]
pub struct Linear {
    engine: Engine,
    descriptor: LinearDescriptor,
    plan: Plan,
}

impl Engine {
    /// Plans a linear layer and compiles what is not compiled yet.
    ///
    /// # Errors
    /// A size that is 0, or an operand beyond 2³² elements; a row that no binding of the device holds.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare_linear(&self, descriptor: &LinearDescriptor) -> Result<Linear> {
        pollster::block_on(self.prepare_linear_async(descriptor))
    }

    /// As [`prepare_linear`](Self::prepare_linear), for where blocking is not possible.
    pub async fn prepare_linear_async(&self, descriptor: &LinearDescriptor) -> Result<Linear> {
        descriptor.validate()?;
        let LinearDescriptor {
            rows,
            in_features,
            out_features,
            bias,
        } = *descriptor;
        // One sequence: there is no way from batch to batch.
        let sizes = Sizes {
            batch: 1,
            rows,
            in_features,
            out_features,
            input: [0, in_features],
            output: [0, out_features],
            bias,
        };
        let problem = Problem::linear(&sizes).map_err(by_its_own_names)?;
        let plan = Plan::linear(&problem, self.caps()).map_err(by_its_own_names)?;
        for pass in plan.passes() {
            self.pipelines().get_or_create(self.gpu(), plan.kernel(pass)).await?;
        }
        Ok(Linear {
            engine: self.clone(),
            descriptor: *descriptor,
            plan,
        })
    }

    /// A linear layer on host slices: upload, run, read back `[rows, out_features]`.
    ///
    /// ```
    /// use wgpu_attention::{Engine, LinearDescriptor, LinearHostInputs};
    ///
    /// let engine = Engine::new()?;
    /// // Two rows of two channels to one: their difference, and 10.
    /// let descriptor = LinearDescriptor { bias: true, ..LinearDescriptor::new(2, 2, 1) };
    /// let inputs = LinearHostInputs { x: &[5.0, 3.0, 1.0, 4.0], weight: &[1.0, -1.0], bias: Some(&[10.0]) };
    /// assert_eq!(engine.linear(&descriptor, &inputs)?, [12.0, 7.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare_linear`](Self::prepare_linear), and slices of another length than the descriptor says.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn linear(&self, descriptor: &LinearDescriptor, inputs: &LinearHostInputs<'_>) -> Result<Vec<f32>> {
        pollster::block_on(self.linear_waiting(descriptor, inputs, Wait::Here))
    }

    /// As [`linear`](Self::linear), for where blocking is not possible.
    pub async fn linear_async(&self, descriptor: &LinearDescriptor, inputs: &LinearHostInputs<'_>) -> Result<Vec<f32>> {
        self.linear_waiting(descriptor, inputs, Wait::Elsewhere).await
    }

    async fn linear_waiting(
        &self,
        descriptor: &LinearDescriptor,
        inputs: &LinearHostInputs<'_>,
        wait: Wait,
    ) -> Result<Vec<f32>> {
        inputs.validate(descriptor)?;
        let linear = self.prepare_linear_async(descriptor).await?;
        let x = self.upload_async(inputs.x).await?;
        let weight = self.upload_async(inputs.weight).await?;
        let bias = match inputs.bias {
            None => None,
            Some(bias) => Some(self.upload_async(bias).await?),
        };
        let gpu_inputs = LinearInputs {
            bias: bias.as_ref().map(Into::into),
            ..LinearInputs::new(&x, &weight)
        };
        let out = linear.run_waiting(&gpu_inputs, wait).await?;
        self.read_waiting(&out, wait).await
    }
}

impl Linear {
    /// Binds the layer to buffers: makes its parameters and bind groups, so that encoding makes nothing.
    ///
    /// # Errors
    /// Missing, unexpected, too small, misplaced or shared buffers, each by operand.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind<'a>(&self, inputs: &LinearInputs<'a>, out: impl Into<BufferAt<'a>>) -> Result<BoundAttention> {
        pollster::block_on(self.bind_async(inputs, out))
    }

    /// As [`bind`](Self::bind), for where blocking is not possible.
    pub async fn bind_async<'a>(
        &self,
        inputs: &LinearInputs<'a>,
        out: impl Into<BufferAt<'a>>,
    ) -> Result<BoundAttention> {
        if inputs.bias.is_some() && !self.descriptor.bias {
            let operand = Operand::Bias;
            return Err(Error::UnexpectedOperand { operand });
        }
        let operands = Operands::default()
            .with(Operand::Query, Some(inputs.x))
            .with(Operand::Key, Some(inputs.weight))
            .with(Operand::Bias, inputs.bias)
            .with(Operand::Weights, Some(out.into()));
        let engine = &self.engine;
        let binder = Binder {
            gpu: engine.gpu(),
            caps: engine.caps(),
            pipelines: engine.pipelines(),
            plan: &self.plan,
            prepared: &[],
            scores: None,
            lse_planes: None,
            partial: None,
            parts: None,
            part_lse: None,
            tile_lists: None,
            rope_steps: None,
        };
        binder.bind(&operands).await.map_err(by_its_own_names)
    }

    /// Runs on GPU data, into a tensor made for it, `[rows, out_features]`. Submits, and waits only for what long calls need
    /// between their pieces.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, inputs: &LinearInputs<'_>) -> Result<Tensor> {
        pollster::block_on(self.run_waiting(inputs, Wait::Here))
    }

    /// As [`run`](Self::run), for where blocking is not possible.
    pub async fn run_async(&self, inputs: &LinearInputs<'_>) -> Result<Tensor> {
        self.run_waiting(inputs, Wait::Elsewhere).await
    }

    async fn run_waiting(&self, inputs: &LinearInputs<'_>, wait: Wait) -> Result<Tensor> {
        let elements = self.descriptor.elements(Operand::Out).unwrap_or(0);
        let out = self.engine.allocate_async(4 * elements).await?;
        let bound = self.bind_async(inputs, &out).await?;
        self.engine.run_bound(&bound, wait).await?;
        Ok(out)
    }
}

/// The kernel is that of scores, and so are its operands' names: errors that reach the caller say what he calls them.
fn by_its_own_names(mut error: Error) -> Error {
    let rename = |operand: &mut Operand| {
        *operand = match *operand {
            Operand::Query => Operand::X,
            Operand::Key => Operand::Projection,
            Operand::Weights => Operand::Out,
            other => other,
        };
    };
    match &mut error {
        Error::SharedBuffer { operand, other } => {
            rename(operand);
            rename(other);
        }
        Error::Shape { operand, .. }
        | Error::IndexOverflow { operand, .. }
        | Error::OverlappingStrides { operand, .. }
        | Error::MissingOperand { operand }
        | Error::UnexpectedOperand { operand }
        | Error::BufferTooSmall { operand, .. }
        | Error::BufferUsage { operand, .. }
        | Error::BufferOffset { operand, .. } => rename(operand),
        _ => {}
    }
    error
}
