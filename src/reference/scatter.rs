//! New rows into a cache, by the definition.

use crate::error::Result;
use crate::scatter::{ScatterMode, TensorScatterDescriptor, validate_lengths};

/// The cache `[batch, outer, cache_len, inner]` with the rows of `update`, `[batch, outer, update_len, inner]`, written into
/// it: row `t` of a sequence whose write index is `w` (0 without `write_indices`) goes to row `w + t`, modulo `cache_len` in
/// circular mode; in linear mode a row that would lie outside of the cache is dropped. Elements of any type.
///
/// ```
/// use wgpu_attention::{ScatterMode, TensorScatterDescriptor, reference};
///
/// let mut descriptor = TensorScatterDescriptor::new(1, 1, 4, 2, 1);
/// assert_eq!(reference::tensor_scatter(&descriptor, &[1, 2, 3, 4], &[8, 9], Some(&[3]))?, [1, 2, 3, 8]);
/// descriptor.mode = ScatterMode::Circular;
/// assert_eq!(reference::tensor_scatter(&descriptor, &[1, 2, 3, 4], &[8, 9], Some(&[3]))?, [9, 2, 3, 8]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// A size that is 0, more new rows than the cache has, or slices of another length than the descriptor says.
pub fn tensor_scatter<T: Copy>(
    descriptor: &TensorScatterDescriptor<'_>,
    past_cache: &[T],
    update: &[T],
    write_indices: Option<&[i64]>,
) -> Result<Vec<T>> {
    let lengths = [past_cache.len(), update.len()];
    validate_lengths(descriptor, lengths, write_indices.map(<[i64]>::len))?;
    let (cache_len, inner) = (i128::from(descriptor.cache_len), descriptor.inner as usize);
    let mut present = past_cache.to_vec();
    for block in 0..(descriptor.batch * descriptor.outer) as usize {
        let write_index = write_indices.map_or(0, |indices| indices[block / descriptor.outer as usize]);
        for row in 0..descriptor.update_len as usize {
            let mut slot = i128::from(write_index) + row as i128;
            if descriptor.mode == ScatterMode::Circular {
                slot = slot.rem_euclid(cache_len);
            }
            if (0..cache_len).contains(&slot) {
                let from = (block * descriptor.update_len as usize + row) * inner;
                let to = (block * descriptor.cache_len as usize + slot as usize) * inner;
                present[to..to + inner].copy_from_slice(&update[from..from + inner]);
            }
        }
    }
    Ok(present)
}
