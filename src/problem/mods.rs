//! The caller's own functions of a score, in WGSL.

use std::sync::Arc;

use crate::error::{Error, Operand, Result};

/// The caller's own WGSL functions, each one more hook of the kernels. Each text defines the function of its field's name,
/// and whatever else that function calls:
///
/// ```wgsl
/// fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32
/// fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool
/// fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32
/// ```
///
/// The functions see every capture as a module-scope `array<T>` of its name. They are called for positions within the
/// problem only, as often as the kernels like, and must not depend on anything but their arguments and the captures.
///
/// WGSL has no infinity: a `score_mod` that closes a position returns `NEGATIVE_INFINITY`, a constant that is there for it.
///
/// A learned bias by distance, from a table, of queries and keys of the same 20 positions:
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, Capture, CaptureElement, Engine, HostInputs, Mods};
///
/// let mods = Mods {
///     score_mod: Some("fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
///         return score + by_distance[q_idx + 19u - kv_idx];
///     }"),
///     captures: &[Capture { name: "by_distance", element: CaptureElement::F32, len: 39 }],
///     ..Default::default()
/// };
/// let shape = AttentionShape::new(1, 2, 20, 20, 16);
/// let engine = Engine::new()?;
/// let (x, by_distance) = (vec![0.5; 2 * 20 * 16], vec![0.1f32; 39]);
/// let inputs = HostInputs { captures: &[bytemuck::cast_slice(&by_distance)], ..HostInputs::new(&x, &x, &x) };
/// let output = engine.attention(&AttentionDescriptor { shape, mods, ..Default::default() }, &inputs)?;
/// assert!((output.out[0] - 0.5).abs() < 1e-6);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// [`reference::attention_with`](crate::reference::attention_with) takes the same functions in Rust.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mods<'a> {
    /// Changes a score, after scale and softcap and before biases and masks.
    pub score_mod: Option<&'a str>,
    /// Says which positions are open, as one more mask.
    pub mask_mod: Option<&'a str>,
    /// Changes a weight after softmax, also that of a closed position, but none behind a sequence's end. Only the three kernels
    /// can, since it needs the finished row.
    pub prob_mod: Option<&'a str>,
    /// The buffers that the functions read.
    pub captures: &'a [Capture<'a>],
}

/// A buffer that the caller's functions read, as `array<element>` of this name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Capture<'a> {
    /// Its name in the functions.
    pub name: &'a str,
    /// What it holds.
    pub element: CaptureElement,
    /// How many of them.
    pub len: u32,
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CaptureElement {
    /// `f32`.
    F32,
    /// `i32`.
    I32,
    /// `u32`.
    U32,
}

impl CaptureElement {
    pub(crate) fn wgsl(self) -> &'static str {
        match self {
            CaptureElement::F32 => "f32",
            CaptureElement::I32 => "i32",
            CaptureElement::U32 => "u32",
        }
    }
}

/// [`Mods`] that a problem owns. Cheap to clone.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct OwnedMods {
    pub(crate) score_mod: Option<Arc<str>>,
    pub(crate) mask_mod: Option<Arc<str>>,
    pub(crate) prob_mod: Option<Arc<str>>,
    pub(crate) captures: Arc<[OwnedCapture]>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct OwnedCapture {
    pub(crate) name: Box<str>,
    pub(crate) element: CaptureElement,
    pub(crate) len: u32,
}

/// The most captures of one call.
pub(crate) const MAX_CAPTURES: usize = 16;

impl OwnedMods {
    pub(crate) fn new(mods: &Mods<'_>) -> Result<Self> {
        if mods.captures.len() > MAX_CAPTURES {
            return Err(Error::Unsupported {
                what: format!("{} captures", mods.captures.len()),
                why: format!("at most {MAX_CAPTURES}; put several arrays into one"),
            });
        }
        for (index, capture) in (0..).zip(mods.captures) {
            let operand = Operand::Capture(index);
            if !is_identifier(capture.name) {
                return Err(Error::Unsupported {
                    what: format!("{operand} named {:?}", capture.name),
                    why: "a WGSL identifier is expected: letters, digits and single underscores".into(),
                });
            }
            let before = &mods.captures[..index as usize];
            if before.iter().any(|other| other.name == capture.name) {
                return Err(Error::Unsupported {
                    what: format!("{operand} named {:?} like an earlier one", capture.name),
                    why: "each capture needs a name of its own".into(),
                });
            }
        }
        Ok(Self {
            score_mod: mods.score_mod.map(Into::into),
            mask_mod: mods.mask_mod.map(Into::into),
            prob_mod: mods.prob_mod.map(Into::into),
            captures: (mods.captures.iter())
                .map(|capture| OwnedCapture {
                    name: capture.name.into(),
                    element: capture.element,
                    len: capture.len,
                })
                .collect(),
        })
    }
}

fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && name != "_" && !name.starts_with("__") && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
