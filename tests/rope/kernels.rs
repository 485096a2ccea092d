//! The kernel on every adapter and tier against the `f64` reference, in poisoned buffers, twice.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    BoundAttention, BufferAt, DType, Engine, Error, Layout, Operand, RopeAngles, RopeConfig, RopeDTypes,
    RopeDescriptor, RopeFrequencies, RopeHostInputs, RopeInputs, RopeLayouts, RopePairing, RopePositions, RopeProblem,
    Strides, Tensor,
};

use crate::support::{Tolerance, compare, engine, engines, inputs::for_each_element};

const POISON: u8 = 0xa7;
const PAIRINGS: [RopePairing; 2] = [RopePairing::HalfSplit, RopePairing::Interleaved];

/// Operands that their storage types hold exactly. Gaps between the elements of x hold NaN.
pub(crate) struct Operands {
    pub(crate) x: Vec<f32>,
    pub(crate) position_ids: Option<Vec<i32>>,
    pub(crate) cos: Option<Vec<f32>>,
    pub(crate) sin: Option<Vec<f32>>,
}

impl Operands {
    pub(crate) fn random(problem: &RopeProblem, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let dtypes = problem.dtypes();
        let x_extent = problem.extent(Operand::X).or(problem.extent(Operand::Out)).unwrap();
        let mut x = vec![f32::NAN; x_extent.span() as usize];
        for_each_element(&x_extent, |index, _| x[index] = rng.random_range(-2.0..2.0));
        let mut cache = |operand| {
            let span = problem.extent(operand)?.span();
            let cache: Vec<f32> = (0..span).map(|_| rng.random_range(-1.0..1.0)).collect();
            Some(exact(dtypes.cache, &cache))
        };
        let (cos, sin) = (cache(Operand::Cos), cache(Operand::Sin));
        let positions = match problem.max_positions() {
            Some(max_positions) => 0..max_positions as i32,
            None => -200_000..200_000,
        };
        let ids = problem.extent(Operand::PositionIds).map(|extent| extent.span());
        Self {
            x: exact(dtypes.x, &x),
            position_ids: ids.map(|span| (0..span).map(|_| rng.random_range(positions.clone())).collect()),
            cos,
            sin,
        }
    }

    pub(crate) fn host(&self) -> RopeHostInputs<'_> {
        RopeHostInputs {
            x: &self.x,
            position_ids: self.position_ids.as_deref(),
            cos: self.cos.as_deref(),
            sin: self.sin.as_deref(),
        }
    }
}

/// The numbers rounded to a storage type.
fn exact(dtype: DType, numbers: &[f32]) -> Vec<f32> {
    dtype.widen(&dtype.narrow(numbers))
}

/// Uploads bytes behind `offset_bytes` of poison, with more of it after them.
fn shifted(engine: &Engine, data: &[u8], offset_bytes: u64) -> Tensor {
    let mut bytes = vec![POISON; offset_bytes as usize];
    bytes.extend(data);
    bytes.extend([POISON; 8]);
    engine.upload_bytes(&bytes).unwrap()
}

fn at(tensor: &Tensor, offset_bytes: u64) -> BufferAt<'_> {
    BufferAt {
        buffer: tensor.buffer(),
        offset_bytes,
    }
}

/// What a run left in out, as bytes; fails if it wrote before or after it.
fn run(engine: &Engine, descriptor: &RopeDescriptor<'_>, operands: &Operands, offset: u64) -> Vec<u8> {
    let rope = engine
        .prepare_rope(descriptor)
        .unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    let dtypes = descriptor.dtypes;
    let place = |data: Option<Vec<u8>>, element_bytes| {
        data.map(|data| (shifted(engine, &data, offset * element_bytes), offset * element_bytes))
    };
    let x = place(Some(dtypes.x.narrow(&operands.x)), dtypes.x.bytes()).unwrap();
    let ids = place(
        operands
            .position_ids
            .as_deref()
            .map(|ids| bytemuck::cast_slice(ids).to_vec()),
        4,
    );
    let cache = |data: &Option<Vec<f32>>| {
        place(
            data.as_ref().map(|data| dtypes.cache.narrow(data)),
            dtypes.cache.bytes(),
        )
    };
    let (cos, sin) = (cache(&operands.cos), cache(&operands.sin));
    let out_bytes = rope.problem().extent(Operand::Out).unwrap().span() * dtypes.out.bytes();
    let (out, out_offset) = match descriptor.in_place {
        true => x.clone(),
        false => place(Some(vec![POISON; out_bytes as usize]), dtypes.out.bytes()).unwrap(),
    };
    let given = |place: &'_ Option<(Tensor, u64)>| -> Option<(Tensor, u64)> { place.clone() };
    let (ids, cos, sin) = (given(&ids), given(&cos), given(&sin));
    let inputs = RopeInputs {
        x: (!descriptor.in_place).then_some(at(&x.0, x.1)),
        position_ids: ids.as_ref().map(|(tensor, offset)| at(tensor, *offset)),
        cos: cos.as_ref().map(|(tensor, offset)| at(tensor, *offset)),
        sin: sin.as_ref().map(|(tensor, offset)| at(tensor, *offset)),
    };
    let bound: BoundAttention = rope
        .bind(&inputs, at(&out, out_offset))
        .unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    engine.run(&bound).unwrap();
    let words = engine.read(&out).unwrap();
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    let (before, rest) = bytes.split_at(out_offset as usize);
    let (data, after) = rest.split_at(out_bytes as usize);
    let untouched = |bytes: &[u8]| bytes.iter().all(|&byte| byte == POISON);
    assert!(
        untouched(before) && untouched(&after[..4]),
        "wrote outside: {descriptor:?}"
    );
    data.to_vec()
}

/// Runs twice, compares the runs bit by bit, the gaps of out with what they held, and the elements with the reference.
pub(crate) fn check(name: &str, engine: &Engine, descriptor: &RopeDescriptor<'_>, operands: &Operands, offset: u64) {
    let got = run(engine, descriptor, operands, offset);
    assert!(
        got == run(engine, descriptor, operands, offset),
        "{name}: two runs differ: {descriptor:?}"
    );

    let problem = RopeProblem::new(descriptor).unwrap();
    let want = reference::rope(&problem, &operands.host()).unwrap();
    let naive = reference::rope_in(Precision::F32, &problem, &operands.host()).unwrap();
    let extent = problem.extent(Operand::Out).unwrap();
    let mut is_element = vec![false; want.len()];
    for_each_element(&extent, |index, _| is_element[index] = true);
    let element_bytes = descriptor.dtypes.out.bytes() as usize;
    let gap: Vec<u8> = match descriptor.in_place {
        true => descriptor.dtypes.out.narrow(&[f32::NAN]),
        false => vec![POISON; element_bytes],
    };
    for (index, bytes) in got.chunks(element_bytes).enumerate() {
        assert!(
            is_element[index] || bytes == gap,
            "{name}: wrote into a gap, at {index}: {descriptor:?}"
        );
    }
    let only = |all: &[f64]| -> Vec<f64> {
        let elements = all.iter().zip(&is_element);
        elements
            .filter_map(|(value, element)| element.then_some(*value))
            .collect()
    };
    let got = descriptor.dtypes.out.widen(&got);
    let got: Vec<f32> = got
        .iter()
        .zip(&is_element)
        .filter_map(|(value, element)| element.then_some(*value))
        .collect();
    let (want, naive) = (only(&want), only(&naive));
    let mut tolerance = Tolerance::derived(&naive, &want);
    tolerance.absolute += storage_error(descriptor.dtypes.out, &want);
    compare(&got, &want, tolerance).unwrap_or_else(|error| panic!("{name}: {error}\n{descriptor:?}"));
}

/// Half a unit in the last place of the largest result: what rounding to the storage type costs.
fn storage_error(dtype: DType, want: &[f64]) -> f64 {
    let largest = want.iter().fold(0.0f64, |most, want| most.max(want.abs()));
    largest
        * match dtype {
            DType::F32 => 0.0,
            DType::F16 => 2f64.powi(-11),
            DType::Bf16 => 2f64.powi(-8),
        }
}

fn frequencies(rotary_dim: u32) -> RopeFrequencies {
    let plain = RopeFrequencies::new(&RopeConfig::new(rotary_dim)).unwrap();
    RopeFrequencies::from_inv_freq(plain.inv_freq().to_vec(), 1.125).unwrap()
}

/// Every way to get angles: `[angles, positions]`.
fn angles(frequencies: &RopeFrequencies) -> Vec<(RopeAngles<'_>, RopePositions)> {
    let rotary_dim = frequencies.rotary_dim();
    let computed = RopeAngles::Frequencies(frequencies);
    let table = RopeAngles::CacheByPosition {
        rotary_dim,
        max_positions: 401,
    };
    vec![
        (computed, RopePositions::Offset(99_990)),
        (computed, RopePositions::Offset(-3)),
        (computed, RopePositions::Ids),
        (computed, RopePositions::SharedIds),
        (table, RopePositions::Offset(1)),
        (table, RopePositions::Ids),
        (table, RopePositions::SharedIds),
        (RopeAngles::CacheByRow { rotary_dim }, RopePositions::Offset(0)),
    ]
}

/// Contiguous either way, and rows and heads among others, at even and at odd distances.
fn layouts([batch, heads, seqlen, head_dim]: [u32; 4]) -> [Layout; 4] {
    let padded = |gap: u32| {
        let row = heads * head_dim + gap;
        Layout::Strided(Strides {
            batch: batch.min(2) * (seqlen * row + gap),
            head: head_dim,
            row,
        })
    };
    [Layout::Bhsd, Layout::Bshd, padded(4), padded(3)]
}

/// `[batch, heads, seqlen, head_dim]` and how many channels rotate: sizes around words, odd heads, more rows than a workgroup.
const SIZES: [([u32; 4], u32); 9] = [
    ([1, 1, 1, 2], 2),
    ([2, 3, 5, 8], 8),
    ([1, 9, 17, 64], 64),
    ([2, 3, 4, 6], 4),
    ([2, 2, 33, 20], 12),
    ([1, 4, 7, 7], 6),
    ([3, 1, 2, 9], 4),
    ([1, 17, 3, 80], 32),
    ([1, 1, 300, 6], 2),
];

#[test]
fn rotating_agrees_with_the_reference() {
    for (name, engine) in engines() {
        let mut case = 0;
        for (sizes, rotary_dim) in SIZES {
            let frequencies = frequencies(rotary_dim);
            for (angles, positions) in angles(&frequencies) {
                for pairing in PAIRINGS {
                    for out in DType::ALL {
                        // What the kernel does not tell apart goes round, in steps that meet in every combination.
                        case += 1;
                        let layouts = layouts(sizes);
                        let descriptor = RopeDescriptor {
                            positions,
                            pairing,
                            layouts: RopeLayouts {
                                x: layouts[case / 4 % 4],
                                out: layouts[case % 4],
                            },
                            dtypes: RopeDTypes {
                                x: DType::ALL[case / 3 % 3],
                                out,
                                cache: DType::ALL[case / 9 % 3],
                            },
                            ..RopeDescriptor::new(sizes, angles)
                        };
                        let problem = RopeProblem::new(&descriptor).unwrap();
                        let operands = Operands::random(&problem, case as u64);
                        check(&name, &engine, &descriptor, &operands, [0, 1, 4, 7][case / 2 % 4]);
                    }
                }
            }
        }
    }
}

#[test]
fn rotating_in_place_agrees_with_the_reference() {
    for (name, engine) in engines() {
        let mut case = 0;
        for (sizes, rotary_dim) in SIZES {
            let frequencies = frequencies(rotary_dim);
            for layout in layouts(sizes) {
                for pairing in PAIRINGS {
                    for dtype in DType::ALL {
                        case += 1;
                        let descriptor = RopeDescriptor {
                            positions: RopePositions::Ids,
                            pairing,
                            layouts: RopeLayouts::all(layout),
                            dtypes: RopeDTypes::all(dtype),
                            in_place: true,
                            ..RopeDescriptor::new(sizes, RopeAngles::Frequencies(&frequencies))
                        };
                        let problem = RopeProblem::new(&descriptor).unwrap();
                        let operands = Operands::random(&problem, case);
                        check(&name, &engine, &descriptor, &operands, case % 4);
                    }
                }
            }
        }
    }
}

/// Rotations so large that an invocation rotates several heads: 2 of 9, 8 of 17, and 8 of which the last group has one.
#[test]
fn heads_that_share_an_angle_agree_with_the_reference() {
    let frequencies = frequencies(64);
    for (name, engine) in engines() {
        for (case, (heads, seqlen)) in [(9, 250), (17, 700), (8, 1050)].into_iter().enumerate() {
            for pairing in PAIRINGS {
                let descriptor = RopeDescriptor {
                    pairing,
                    layouts: RopeLayouts {
                        x: Layout::Bshd,
                        out: Layout::Bhsd,
                    },
                    dtypes: RopeDTypes::all(DType::ALL[case]),
                    ..RopeDescriptor::new([2, heads, seqlen, 64], RopeAngles::Frequencies(&frequencies))
                };
                let problem = RopeProblem::new(&descriptor).unwrap();
                check(&name, &engine, &descriptor, &Operands::random(&problem, 6), 2);
            }
        }
    }
}

/// Rotations that are cut by each limit compute the same.
#[test]
fn limits_are_planned_for() {
    for (name, engine) in engines() {
        let mut small_bindings = engine.caps().clone();
        small_bindings.limits.max_storage_buffer_binding_bytes = 4000;
        let mut narrow = engine.caps().clone();
        narrow.limits.max_workgroups_per_dimension = 2;
        let mut short = engine.caps().clone();
        short.max_dispatch_flops = 2e4;
        for caps in [small_bindings, narrow, short] {
            let limited = engine.with_caps(caps);
            for (sizes, rotary_dim) in [([2, 5, 40, 33], 32), ([1, 12, 7, 64], 48), ([3, 2, 130, 8], 8)] {
                let frequencies = frequencies(rotary_dim);
                for (case, (angles, positions)) in angles(&frequencies).into_iter().enumerate() {
                    // A table by ids is bound as a whole: here it does not fit.
                    let whole = matches!(angles, RopeAngles::CacheByPosition { .. });
                    if whole && !matches!(positions, RopePositions::Offset(_)) {
                        continue;
                    }
                    let descriptor = RopeDescriptor {
                        positions,
                        layouts: RopeLayouts {
                            x: layouts(sizes)[case % 4],
                            out: layouts(sizes)[(case + 1) % 4],
                        },
                        dtypes: RopeDTypes::all(DType::ALL[case % 3]),
                        ..RopeDescriptor::new(sizes, angles)
                    };
                    let problem = RopeProblem::new(&descriptor).unwrap();
                    check(&name, &limited, &descriptor, &Operands::random(&problem, 5), 3);
                }
            }
        }
    }
}

#[test]
fn what_no_binding_holds_is_a_limit() {
    let engine = engine();
    let mut caps = engine.caps().clone();
    caps.limits.max_storage_buffer_binding_bytes = 400;
    let limited = engine.with_caps(caps);
    let row = limited.prepare_rope(&RopeDescriptor::new(
        [1, 1, 1, 100],
        RopeAngles::CacheByRow { rotary_dim: 4 },
    ));
    assert!(matches!(row.unwrap_err(), Error::Limit { required: 400, .. }));
    let table = RopeAngles::CacheByPosition {
        rotary_dim: 4,
        max_positions: 50,
    };
    let by_ids = RopeDescriptor {
        positions: RopePositions::Ids,
        ..RopeDescriptor::new([1, 1, 1, 4], table)
    };
    assert!(matches!(
        limited.prepare_rope(&by_ids).unwrap_err(),
        Error::Limit { required: 400, .. }
    ));
}
