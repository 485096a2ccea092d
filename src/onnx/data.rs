//! The operands of a planned call, made from a node's inputs.

use std::borrow::Cow;

use super::OnnxPlan;
use super::node::{OnnxMaskKind, fault};
use super::positions::{Lengths, Masked};
use crate::error::{Error, Operand, Result};

impl OnnxPlan {
    /// The call's keys, `[batch, kv_heads, seqlen_k, head_dim]`: `K` behind `past_key`. Where neither the past nor the
    /// present is connected, `K` as it is. They are `present_key`, too.
    ///
    /// ```
    /// use wgpu_attention::onnx::{OnnxAttention, OnnxPlan};
    ///
    /// let plan = OnnxPlan::new(&OnnxAttention {
    ///     past_key: Some(&[1, 2, 1, 1]),
    ///     past_value: Some(&[1, 2, 1, 1]),
    ///     q_num_heads: Some(2),
    ///     kv_num_heads: Some(2),
    ///     ..OnnxAttention::new(23, &[1, 2, 2], &[1, 2, 2], &[1, 2, 2])
    /// })?;
    /// // Two heads of one channel: the past has one row, K two rows of two heads each.
    /// assert_eq!(plan.key(Some(&[1, 5]), &[2, 6, 3, 7])?, [1, 2, 3, 5, 6, 7].as_slice());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn key<'a, T: Copy>(&self, past_key: Option<&[T]>, key: &'a [T]) -> Result<Cow<'a, [T]>> {
        self.cached(Operand::Key, self.sizes.shape.head_dim, past_key, key)
    }

    /// As [`key`](Self::key), for `V`, `past_value` and `present_value`.
    pub fn value<'a, T: Copy>(&self, past_value: Option<&[T]>, value: &'a [T]) -> Result<Cow<'a, [T]>> {
        self.cached(Operand::Value, self.sizes.shape.head_dim_v, past_value, value)
    }

    /// The call's boolean mask, 0 closed, from a boolean `attn_mask` and `nonpad_kv_seqlen`; `None` if it takes none.
    pub fn mask_data<'a>(
        &self,
        attn_mask: Option<&'a [u8]>,
        nonpad_kv_seqlen: Option<&[i64]>,
    ) -> Result<Option<Cow<'a, [u8]>>> {
        let operand = Operand::Mask;
        let shape = self.sizes.shape;
        let Some(target) = self.descriptor.mask else {
            return match attn_mask {
                Some(_) => Err(Error::UnexpectedOperand { operand }),
                None => Ok(None),
            };
        };
        let given = match (self.given_mask(OnnxMaskKind::Boolean), attn_mask) {
            (None, None) => ([1, 1, 1, shape.seqlen_k], Cow::Owned(vec![1; shape.seqlen_k as usize])),
            (Some(shape), Some(mask)) => (shape, Cow::Borrowed(mask)),
            (Some(_), None) => return Err(Error::MissingOperand { operand }),
            (None, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
        };
        let stretched = self.stretched(operand, given, target.shape, 0)?;
        let Some(masked) = self.masked else {
            return Ok(Some(stretched));
        };
        let lengths = match masked {
            Masked::Outside(_) => vec![shape.seqlen_k; shape.batch as usize],
            Masked::OutsideByLength(_) => self.checked_lengths(nonpad_kv_seqlen)?,
        };
        let mut mask = stretched.into_owned();
        for (open, [b, _, i, j]) in mask.iter_mut().zip(places(target.shape)) {
            *open *= u8::from(masked.is_open(shape, lengths[b as usize], [i, j]));
        }
        Ok(Some(Cow::Owned(mask)))
    }

    /// The call's bias from a float `attn_mask` and its type's negative infinity; `None` if it takes none.
    pub fn bias_data<'a, T: Copy>(
        &self,
        attn_mask: Option<&'a [T]>,
        negative_infinity: T,
    ) -> Result<Option<Cow<'a, [T]>>> {
        let operand = Operand::Bias;
        let given = self.given_mask(OnnxMaskKind::Float);
        let (given, target, bias) = match (given, self.descriptor.bias, attn_mask) {
            (Some(given), Some(target), Some(bias)) => (given, target, bias),
            (Some(_), _, _) => return Err(Error::MissingOperand { operand }),
            (None, _, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
            (None, _, None) => return Ok(None),
        };
        let given = (given, Cow::Borrowed(bias));
        self.stretched(operand, given, target.shape, negative_infinity)
            .map(Some)
    }

    /// The call's lengths, `[batch]`, from `nonpad_kv_seqlen`; `None` if it takes none.
    pub fn key_lengths(&self, nonpad_kv_seqlen: Option<&[i64]>) -> Result<Option<Vec<u32>>> {
        let operand = Operand::KeyPadding;
        let by_length = matches!(self.masked, Some(Masked::OutsideByLength(_)));
        match (self.lengths, nonpad_kv_seqlen) {
            (Lengths::Given, lengths) => self.checked_lengths(lengths).map(Some),
            (_, Some(_)) if !by_length => Err(Error::UnexpectedOperand { operand }),
            (Lengths::Uniform(length), _) => Ok(Some(vec![length; self.sizes.shape.batch as usize])),
            (Lengths::All, _) => Ok(None),
        }
    }

    fn checked_lengths(&self, nonpad_kv_seqlen: Option<&[i64]>) -> Result<Vec<u32>> {
        let shape = self.sizes.shape;
        let operand = Operand::KeyPadding;
        let lengths = nonpad_kv_seqlen.ok_or(Error::MissingOperand { operand })?;
        expect_length(operand, lengths.len(), [shape.batch, 1, 1, 1])?;
        let checked = lengths.iter().map(|&length| {
            let fits = u32::try_from(length).ok().filter(|length| *length <= shape.seqlen_k);
            fits.ok_or_else(|| {
                let expected = format!("0 to {} for each sequence", shape.seqlen_k);
                fault("nonpad_kv_seqlen", format!("{lengths:?}"), expected)
            })
        });
        checked.collect()
    }

    fn cached<'a, T: Copy>(
        &self,
        operand: Operand,
        channels: u32,
        past: Option<&[T]>,
        new: &'a [T],
    ) -> Result<Cow<'a, [T]>> {
        let shape = self.sizes.shape;
        let past_rows = self.sizes.past.unwrap_or(0);
        let new_rows = shape.seqlen_k - past_rows;
        let past = match (self.sizes.past, past) {
            (Some(_), None) => return Err(Error::MissingOperand { operand }),
            (Some(_), Some(past)) => past,
            (None, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
            (None, None) => &[],
        };
        expect_length(operand, past.len(), [shape.batch, shape.kv_heads, past_rows, channels])?;
        expect_length(operand, new.len(), [shape.batch, shape.kv_heads, new_rows, channels])?;
        if !self.rearranges() {
            return Ok(Cow::Borrowed(new));
        }
        let [heads, channels] = [shape.kv_heads as usize, channels as usize];
        let [past_rows, new_rows] = [past_rows as usize, new_rows as usize];
        let mut all = Vec::with_capacity(past.len() + new.len());
        for head in 0..shape.batch as usize * heads {
            all.extend_from_slice(&past[head * past_rows * channels..][..past_rows * channels]);
            for row in 0..new_rows {
                let row = match self.sizes.packed {
                    true => (head / heads * new_rows + row) * heads + head % heads,
                    false => head * new_rows + row,
                };
                all.extend_from_slice(&new[row * channels..][..channels]);
            }
        }
        Ok(Cow::Owned(all))
    }

    /// A mask of a larger shape: axes of 1 repeat, and keys behind the last one are closed.
    fn stretched<'a, T: Copy>(
        &self,
        operand: Operand,
        (given_shape, given): ([u32; 4], Cow<'a, [T]>),
        target: [u32; 4],
        closed: T,
    ) -> Result<Cow<'a, [T]>> {
        expect_length(operand, given.len(), given_shape)?;
        if given_shape == target {
            return Ok(given);
        }
        let repeats = given_shape[3] == 1 && self.mask_key_broadcasts;
        let [batch, heads, rows, keys] = given_shape.map(|size| size as usize);
        let element = |[b, h, i, j]: [u32; 4]| {
            let j = if repeats { 0 } else { j as usize };
            let [b, h, i] = [(b, batch), (h, heads), (i, rows)].map(|(index, size)| (index as usize).min(size - 1));
            if j < keys {
                given[((b * heads + h) * rows + i) * keys + j]
            } else {
                closed
            }
        };
        Ok(Cow::Owned(places(target).map(element).collect()))
    }
}

/// Every index of a contiguous operand, in the order of its elements.
fn places([batch, heads, rows, keys]: [u32; 4]) -> impl Iterator<Item = [u32; 4]> {
    let rows = (0..batch).flat_map(move |b| (0..heads).flat_map(move |h| (0..rows).map(move |i| [b, h, i])));
    rows.flat_map(move |[b, h, i]| (0..keys).map(move |j| [b, h, i, j]))
}

fn expect_length(operand: Operand, actual: usize, shape: [u32; 4]) -> Result<()> {
    let expected = shape
        .iter()
        .try_fold(1u64, |count, &size| count.checked_mul(size.into()));
    match expected == Some(actual as u64) {
        true => Ok(()),
        false => Err(Error::Length {
            operand,
            actual: actual as u64,
            expected: expected.unwrap_or(u64::MAX),
        }),
    }
}
