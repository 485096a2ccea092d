//! From ONNX's rule for positions to this crate's: causal alignment, window, lengths.
//!
//! ONNX gives every query `i` the position `i + offset`, and bounds the keys `j` that it sees on either side of it:
//! `lower <= j - i <= upper`. The offset is the length of the past, which need not be one of this crate's two alignments when
//! the past is followed by more or fewer keys than there are queries.

use crate::problem::{AttentionShape, CausalAlignment, Window};

/// Which keys belong to a sequence.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Lengths {
    /// All of them.
    All,
    /// This many of every sequence: what is behind them is closed to every query anyhow.
    Uniform(u32),
    /// As many as `nonpad_kv_seqlen` says.
    Given,
}

/// Bounds of `j - i - offset`, where `None` is no bound.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Bounds {
    pub(super) lower: Option<i64>,
    pub(super) upper: Option<i64>,
}

impl Bounds {
    /// The bounds around a query's own position.
    pub(super) fn new(is_causal: bool, left_window_size: i64, right_window_size: i64) -> Self {
        let right = (right_window_size >= 0).then_some(right_window_size);
        Self {
            lower: (left_window_size >= 0).then_some(-left_window_size),
            upper: if is_causal { Some(0) } else { right },
        }
    }

    /// The bounds of `j - i`, without those that close nothing.
    fn shifted(self, offset: u32, shape: AttentionShape) -> Self {
        let offset = i64::from(offset);
        let (last_row, last_key) = (i64::from(shape.seqlen_q) - 1, i64::from(shape.seqlen_k) - 1);
        let lower = self.lower.map(|lower| lower.saturating_add(offset));
        let upper = self.upper.map(|upper| upper.saturating_add(offset));
        Self {
            lower: lower.filter(|lower| lower + last_row > 0),
            upper: upper.filter(|upper| *upper < last_key),
        }
    }

    fn contain(self, difference: i64) -> bool {
        self.lower.is_none_or(|lower| lower <= difference) && self.upper.is_none_or(|upper| difference <= upper)
    }
}

/// Positions that a mask closes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Masked {
    /// Those outside of these bounds of `j - i`.
    Outside(Bounds),
    /// Those behind the end of their sequence, and those outside of these bounds of `j - i - (length - seqlen_q)`.
    OutsideByLength(Bounds),
}

impl Masked {
    /// Whether key `j` is open for query `i` in a sequence of this length.
    pub(super) fn is_open(self, shape: AttentionShape, length: u32, [i, j]: [u32; 2]) -> bool {
        let difference = i64::from(j) - i64::from(i);
        match self {
            Masked::Outside(bounds) => bounds.contain(difference),
            Masked::OutsideByLength(bounds) => {
                let offset = i64::from(length) - i64::from(shape.seqlen_q);
                j < length && bounds.contain(difference - offset)
            }
        }
    }
}

/// ONNX's rule for positions in this crate's terms; all of them together.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Positions {
    pub(super) causal: Option<CausalAlignment>,
    pub(super) window: Option<Window>,
    pub(super) lengths: Lengths,
    /// What is left to a mask.
    pub(super) masked: Option<Masked>,
}

impl Positions {
    /// With an offset that is the same for every sequence. Lengths may be refused: behind them no scores are handed out.
    pub(super) fn fixed(bounds: Bounds, offset: u32, shape: AttentionShape, may_shorten: bool) -> Self {
        let bounds = bounds.shifted(offset, shape);
        let (seqlen_q, seqlen_k) = (i64::from(shape.seqlen_q), i64::from(shape.seqlen_k));
        let bases = [
            (CausalAlignment::UpperLeft, 0),
            (CausalAlignment::LowerRight, seqlen_k - seqlen_q),
        ];
        let above = |base: i64| bounds.lower.is_none_or(|lower| lower <= base);
        let below = |base: i64| bounds.upper.is_none_or(|upper| base <= upper);
        let exact = bases
            .iter()
            .find(|(_, base)| above(*base) && bounds.upper == Some(*base));
        let loose = || bases.iter().find(|(_, base)| above(*base) && below(*base));
        if let Some(&(alignment, base)) = exact.or_else(loose) {
            return Self::around(bounds, base, alignment, Lengths::All);
        }
        // The last query sees the keys up to seqlen_q - 1 + upper: as a length, that puts LowerRight at `upper`.
        match bounds.upper {
            Some(upper) if may_shorten && upper + seqlen_q <= seqlen_k => {
                let length = u32::try_from(upper + seqlen_q).unwrap_or(shape.seqlen_k);
                Self::around(bounds, upper, CausalAlignment::LowerRight, Lengths::Uniform(length))
            }
            _ => Self::masked(Masked::Outside(bounds)),
        }
    }

    /// With each sequence's own length less `seqlen_q` as its offset.
    pub(super) fn per_sequence(bounds: Bounds, shape: AttentionShape, may_shorten: bool) -> Self {
        if !may_shorten {
            return Self::masked(Masked::OutsideByLength(bounds));
        }
        let (last_row, last_key) = (i64::from(shape.seqlen_q) - 1, i64::from(shape.seqlen_k) - 1);
        let bounds = Bounds {
            lower: bounds.lower.filter(|lower| lower + last_key > 0),
            upper: bounds.upper.filter(|upper| *upper < last_row),
        };
        Self::around(bounds, 0, CausalAlignment::LowerRight, Lengths::Given)
    }

    fn masked(masked: Masked) -> Self {
        Self {
            causal: None,
            window: None,
            lengths: Lengths::All,
            masked: Some(masked),
        }
    }

    /// Bounds on either side of where `alignment` puts a query, `base`.
    fn around(bounds: Bounds, base: i64, alignment: CausalAlignment, lengths: Lengths) -> Self {
        let is_causal = bounds.upper == Some(base);
        let distance = |bound: i64| u32::try_from(bound).unwrap_or(u32::MAX);
        let window = Window {
            left: bounds.lower.map(|lower| distance(base - lower)),
            right: bounds.upper.filter(|_| !is_causal).map(|upper| distance(upper - base)),
            alignment,
        };
        Self {
            causal: is_causal.then_some(alignment),
            window: (window.left.is_some() || window.right.is_some()).then_some(window),
            lengths,
            masked: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: std::ops::Range<u32> = 1..6;
    const WINDOWS: std::ops::Range<i64> = -1..8;

    /// What the descriptor says of key `j` and query `i`, for a sequence of this length.
    fn is_open(positions: &Positions, shape: AttentionShape, length: u32, [i, j]: [u32; 2]) -> bool {
        let base = |alignment| match alignment {
            CausalAlignment::UpperLeft => 0,
            CausalAlignment::LowerRight => i64::from(length) - i64::from(shape.seqlen_q),
        };
        let difference = i64::from(j) - i64::from(i);
        let causal = positions.causal.is_none_or(|alignment| difference <= base(alignment));
        let window = positions.window.is_none_or(|Window { left, right, alignment }| {
            let difference = difference - base(alignment);
            left.is_none_or(|left| -i64::from(left) <= difference)
                && right.is_none_or(|right| difference <= i64::from(right))
        });
        let end = if positions.lengths == Lengths::All {
            shape.seqlen_k
        } else {
            length
        };
        let masked = positions
            .masked
            .is_none_or(|masked| masked.is_open(shape, length, [i, j]));
        j < end && causal && window && masked
    }

    /// The operator's rule, with the offset as it defines it.
    fn wanted([is_causal, left, right]: [i64; 3], offset: i64, [i, j]: [u32; 2]) -> bool {
        let position = i64::from(i) + offset;
        let key = i64::from(j);
        (is_causal == 0 || key <= position)
            && (left < 0 || position - left <= key)
            && (right < 0 || key <= position + right)
    }

    fn rules() -> impl Iterator<Item = [i64; 3]> {
        let sides = WINDOWS.flat_map(|left| WINDOWS.map(move |right| (left, right)));
        sides.flat_map(|(left, right)| [[0, left, right], [1, left, right]])
    }

    fn places(shape: AttentionShape) -> impl Iterator<Item = [u32; 2]> {
        (0..shape.seqlen_q).flat_map(move |i| (0..shape.seqlen_k).map(move |j| [i, j]))
    }

    #[test]
    fn every_small_past() {
        let mut kinds = std::collections::BTreeMap::new();
        for seqlen_q in SIZES {
            for (past, new) in (0..7).flat_map(|past| SIZES.map(move |new| (past, new))) {
                let shape = AttentionShape::new(1, 1, seqlen_q, past + new, 1);
                for rule @ [is_causal, left, right] in rules() {
                    let bounds = Bounds::new(is_causal == 1, left, right);
                    let positions = Positions::fixed(bounds, past, shape, true);
                    let whole = Positions::fixed(bounds, past, shape, false);
                    assert_eq!(whole.lengths, Lengths::All);
                    let length = match positions.lengths {
                        Lengths::Uniform(length) => length,
                        _ => shape.seqlen_k,
                    };
                    assert!(length <= shape.seqlen_k);
                    for place in places(shape) {
                        let open = is_open(&positions, shape, length, place);
                        assert_eq!(
                            open,
                            wanted(rule, past.into(), place),
                            "{rule:?} {past} {shape:?} {place:?}"
                        );
                    }
                    let kind = (positions.masked.is_some(), positions.lengths == Lengths::All);
                    *kinds.entry(kind).or_insert(0) += 1;
                }
            }
        }
        // Masks are needed seldom, but they and lengths are needed.
        let [direct, lengths, masks] = [(false, true), (false, false), (true, true)].map(|kind| kinds[&kind]);
        assert!(direct > 10 * masks && lengths > 0 && masks > 0, "{kinds:?}");
    }

    #[test]
    fn every_small_length() {
        for (seqlen_q, seqlen_k) in SIZES.flat_map(|seqlen_q| SIZES.map(move |seqlen_k| (seqlen_q, seqlen_k))) {
            let shape = AttentionShape::new(1, 1, seqlen_q, seqlen_k, 1);
            for rule @ [is_causal, left, right] in rules() {
                let bounds = Bounds::new(is_causal == 1, left, right);
                let positions = [true, false].map(|may| Positions::per_sequence(bounds, shape, may));
                for length in 0..=seqlen_k {
                    for place in places(shape) {
                        let offset = i64::from(length) - i64::from(seqlen_q);
                        let wanted = place[1] < length && wanted(rule, offset, place);
                        for positions in &positions {
                            let open = is_open(positions, shape, length, place);
                            assert_eq!(open, wanted, "{rule:?} {length} {shape:?} {place:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn common_cases_are_what_one_would_write() {
        let causal = |past, seqlen_q, seqlen_k| {
            let shape = AttentionShape::new(1, 1, seqlen_q, seqlen_k, 1);
            Positions::fixed(Bounds::new(true, -1, -1), past, shape, true)
        };
        let no_window = |causal| Positions {
            causal,
            window: None,
            lengths: Lengths::All,
            masked: None,
        };
        assert_eq!(causal(0, 4, 6), no_window(Some(CausalAlignment::UpperLeft)));
        assert_eq!(causal(12, 4, 16), no_window(Some(CausalAlignment::LowerRight)));
        // The newest token sees everything.
        assert_eq!(causal(12, 1, 13), no_window(None));
        let shape = AttentionShape::new(1, 1, 4, 7, 1);
        let far = Positions::fixed(Bounds::new(false, i64::MAX, i64::MAX), 3, shape, true);
        assert_eq!(far, no_window(None));
    }
}
