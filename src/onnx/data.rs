//! The operands of a planned call, made from a node's inputs.

use std::borrow::Cow;

use super::node::{OnnxMaskKind, fault};
use super::{Lengths, OnnxPlan};
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

    /// The boolean mask of shape [`mask`](Self::mask), 0 closed, from a boolean `attn_mask`; `None` if the call takes none.
    pub fn mask_data<'a>(&self, attn_mask: Option<&'a [u8]>) -> Result<Option<Cow<'a, [u8]>>> {
        if attn_mask.is_some() && self.given_mask(OnnxMaskKind::Boolean).is_none() {
            return Err(Error::UnexpectedOperand { operand: Operand::Mask });
        }
        let Some(target) = self.mask() else { return Ok(None) };
        let seqlen_k = self.sizes.shape.seqlen_k;
        let given = match (self.given_mask(OnnxMaskKind::Boolean), attn_mask) {
            (None, _) => ([1, 1, 1, seqlen_k], Cow::Owned(vec![1; seqlen_k as usize])),
            (Some(_), None) => return Err(Error::MissingOperand { operand: Operand::Mask }),
            (Some(shape), Some(mask)) => (shape, Cow::Borrowed(mask)),
        };
        self.stretched(Operand::Mask, given, target.shape, 0).map(Some)
    }

    /// The bias of shape [`bias`](Self::bias) from a float `attn_mask`; `None` if the call takes none.
    pub fn bias_data<'a>(&self, attn_mask: Option<&'a [f32]>) -> Result<Option<Cow<'a, [f32]>>> {
        let (shape, target, bias) = match (self.given_mask(OnnxMaskKind::Float), self.bias(), attn_mask) {
            (Some(shape), Some(target), Some(bias)) => (shape, target, bias),
            (Some(_), _, _) => return Err(Error::MissingOperand { operand: Operand::Bias }),
            (None, _, Some(_)) => return Err(Error::UnexpectedOperand { operand: Operand::Bias }),
            (None, _, None) => return Ok(None),
        };
        let given = (shape, Cow::Borrowed(bias));
        self.stretched(Operand::Bias, given, target.shape, f32::NEG_INFINITY)
            .map(Some)
    }

    /// The number of keys of each sequence, `[batch]`, from `nonpad_kv_seqlen`; `None` if the call takes none.
    pub fn key_lengths(&self, nonpad_kv_seqlen: Option<&[i64]>) -> Result<Option<Vec<u32>>> {
        let shape = self.sizes.shape;
        let operand = Operand::KeyPadding;
        let lengths = match (self.lengths(), nonpad_kv_seqlen) {
            (Lengths::All, None) => return Ok(None),
            (Lengths::Uniform(length), None) => return Ok(Some(vec![length; shape.batch as usize])),
            (Lengths::Given, Some(lengths)) => lengths,
            (Lengths::Given, None) => return Err(Error::MissingOperand { operand }),
            (_, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
        };
        expect_length(Operand::KeyPadding, lengths.len(), [shape.batch, 1, 1, 1])?;
        let checked = lengths.iter().map(|&length| {
            let fits = u32::try_from(length).ok().filter(|length| *length <= shape.seqlen_k);
            fits.ok_or_else(|| {
                let expected = format!("0 to {} for each sequence", shape.seqlen_k);
                fault("nonpad_kv_seqlen", format!("{lengths:?}"), expected)
            })
        });
        checked.collect::<Result<_>>().map(Some)
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

    /// A mask of a larger shape: axes of 1 repeat, keys behind the last one are closed, and so is what only a mask can close.
    fn stretched<'a, T: Copy>(
        &self,
        operand: Operand,
        (given_shape, given): ([u32; 4], Cow<'a, [T]>),
        target: [u32; 4],
        closed: T,
    ) -> Result<Cow<'a, [T]>> {
        expect_length(operand, given.len(), given_shape)?;
        let masked = self.positions.masked.filter(|_| operand == Operand::Mask);
        if given_shape == target && masked.is_none() {
            return Ok(given);
        }
        let repeats = given_shape[3] == 1 && self.mask_key_broadcasts;
        let [batch, heads, rows, keys] = given_shape.map(|size| size as usize);
        let row_of = |b: u32, h: u32, i: u32| {
            let [b, h, i] = [(b, batch), (h, heads), (i, rows)].map(|(index, size)| (index as usize).min(size - 1));
            &given[((b * heads + h) * rows + i) * keys..][..keys]
        };
        let places = (0..target[0]).flat_map(|b| (0..target[1]).map(move |h| (b, h)));
        let places = places.flat_map(|(b, h)| (0..target[2]).map(move |i| (b, h, i)));
        let mut stretched = Vec::new();
        for (b, h, i) in places {
            let row = row_of(b, h, i);
            for j in 0..target[3] {
                let value = if repeats { row.first() } else { row.get(j as usize) };
                let open = masked.is_none_or(|bounds| bounds.is_open(i, j));
                stretched.push(*value.filter(|_| open).unwrap_or(&closed));
            }
        }
        Ok(Cow::Owned(stretched))
    }
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
