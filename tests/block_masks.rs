//! Block masks: made on the GPU from a function, and attention that leaves closed blocks out.

mod support;

use support::run::{Mods, check_mods};
use support::{OwnedInputs, engines, engines_and_gpus};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, BlockMaskDescriptor, BlockMaskShape, BlockState, Capture,
    CaptureElement, CausalAlignment, DType, DTypes, Engine, Error, Operand, Outputs, Packed, Problem, Window,
    block_indices,
};

const MASK_MOD: &str = "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return document[q_idx % 300u] == document[kv_idx % 300u] && (batch == 0u || kv_idx >= 10u * head);
}";

const CAPTURES: &[Capture<'static>] = &[Capture {
    name: "document",
    element: CaptureElement::I32,
    len: 300,
}];

const MODS: wgpu_attention::Mods<'static> = wgpu_attention::Mods {
    score_mod: None,
    mask_mod: Some(MASK_MOD),
    prob_mod: None,
    captures: CAPTURES,
};

fn documents() -> Vec<i32> {
    (0..300).map(|position| position / 70).collect()
}

fn mask_mod(documents: &[i32], [batch, head, q_idx, kv_idx]: [u32; 4]) -> bool {
    documents[q_idx as usize % 300] == documents[kv_idx as usize % 300] && (batch == 0 || kv_idx >= 10 * head)
}

/// Plain loops over every position of every block.
fn states(shape: &AttentionShape, blocks: &BlockMaskShape, open: impl Fn([u32; 4]) -> bool) -> Vec<u32> {
    let [q_blocks, kv_blocks] = blocks.blocks(shape);
    let mut states = Vec::new();
    for batch in 0..blocks.batch {
        for head in 0..blocks.heads {
            for q_block in 0..q_blocks {
                for kv_block in 0..kv_blocks {
                    let mut found = [false; 2];
                    for q_idx in q_block * blocks.block_q..(q_block + 1) * blocks.block_q {
                        for kv_idx in kv_block * blocks.block_kv..(kv_block + 1) * blocks.block_kv {
                            let inside = q_idx < shape.seqlen_q && kv_idx < shape.seqlen_k;
                            found[usize::from(inside && open([batch, head, q_idx, kv_idx]))] = true;
                        }
                    }
                    states.push(match found {
                        [true, false] => BlockState::Closed,
                        [false, true] => BlockState::Open,
                        _ => BlockState::Partial,
                    } as u32);
                }
            }
        }
    }
    states
}

fn shape(seqlen_q: u32, seqlen_k: u32) -> AttentionShape {
    AttentionShape {
        kv_heads: 2,
        ..AttentionShape::new(2, 4, seqlen_q, seqlen_k, 16)
    }
}

#[test]
fn a_function_becomes_blocks() {
    let documents = documents();
    for (name, engine) in engines() {
        for (seqlen_q, seqlen_k) in [(257, 300), (7, 129), (64, 64), (1, 1)] {
            for (block_q, block_kv) in [(1, 1), (16, 16), (32, 64), (128, 128), (7, 13), (500, 500)] {
                for (batch, heads) in [(1, 1), (2, 4)] {
                    let shape = shape(seqlen_q, seqlen_k);
                    let blocks = BlockMaskShape {
                        batch,
                        heads,
                        block_q,
                        block_kv,
                    };
                    let descriptor = BlockMaskDescriptor::new(&shape, blocks, MODS);
                    let got = engine
                        .block_mask(&descriptor, &[bytemuck::cast_slice(&documents)])
                        .unwrap();
                    let want = states(&shape, &blocks, |position| mask_mod(&documents, position));
                    assert_eq!(got, want, "{name}: {seqlen_q} x {seqlen_k} in {blocks:?}");
                }
            }
        }
    }
}

#[test]
fn the_lists_name_each_block_once() {
    let documents = documents();
    let shape = shape(257, 300);
    let blocks = BlockMaskShape {
        batch: 2,
        heads: 4,
        block_q: 16,
        block_kv: 32,
    };
    let states = states(&shape, &blocks, |position| mask_mod(&documents, position));
    let [_, kv_blocks] = blocks.blocks(&shape);
    let lists = block_indices(&states, kv_blocks);
    assert!(lists.full_kv_num_blocks.iter().any(|&open| open > 0) && lists.kv_num_blocks.iter().any(|&some| some > 0));
    for (row, of_row) in states.chunks_exact(kv_blocks as usize).enumerate() {
        for (state, numbers, indices) in [
            (1, &lists.kv_num_blocks, &lists.kv_indices),
            (2, &lists.full_kv_num_blocks, &lists.full_kv_indices),
        ] {
            let indices = &indices[row * kv_blocks as usize..(row + 1) * kv_blocks as usize];
            let (listed, rest) = indices.split_at(numbers[row] as usize);
            assert!(listed.is_sorted() && rest.is_sorted());
            assert!(listed.iter().all(|&block| of_row[block as usize] == state));
            assert!(rest.iter().all(|&block| of_row[block as usize] != state));
        }
    }
}

fn check(name: &str, engine: &Engine, descriptor: &AttentionDescriptor<'_>, seed: u64) {
    let documents = documents();
    let open = |position: [u32; 4]| mask_mod(&documents, position);
    let mut inputs = OwnedInputs::random(&Problem::new(descriptor).unwrap(), seed);
    let mut mods = Mods::default();
    if descriptor.mods.mask_mod.is_some() {
        inputs.captures = vec![bytemuck::cast_slice(&documents).to_vec()];
        mods.mask_mod = Some(&open);
    }
    for algorithm in [Algorithm::Fused, Algorithm::ThreeKernels] {
        let outputs = Outputs {
            lse: true,
            weights: true,
            ..Default::default()
        };
        let descriptor = AttentionDescriptor {
            algorithm,
            outputs,
            ..descriptor.clone()
        };
        check_mods(name, engine, &descriptor, &inputs, &mods);
    }
}

/// Blocks of any size, of whatever state, with and without a function, alone and with other rules.
#[test]
fn closed_blocks_are_left_out() {
    for (name, engine) in engines_and_gpus() {
        let mut seed = 0;
        for (block_q, block_kv) in [(32, 32), (128, 64), (16, 16), (5, 40), (33, 31), (1000, 32)] {
            for (batch, heads) in [(1, 1), (2, 4), (2, 1)] {
                let plain = AttentionDescriptor {
                    shape: shape(129, 257),
                    block_mask: Some(BlockMaskShape {
                        batch,
                        heads,
                        block_q,
                        block_kv,
                    }),
                    ..Default::default()
                };
                seed += 1;
                check(&name, &engine, &plain, seed);
                let with_rules = AttentionDescriptor {
                    mods: MODS,
                    causal: Some(CausalAlignment::LowerRight),
                    window: (block_q == 16).then_some(Window {
                        left: Some(70),
                        right: None,
                        alignment: CausalAlignment::LowerRight,
                    }),
                    ..plain
                };
                check(&name, &engine, &with_rules, seed);
            }
        }
        // One row of queries takes another tile; sequences may be packed, and short.
        for block in [8, 32, 100] {
            let block_mask = Some(BlockMaskShape {
                batch: 1,
                heads: 4,
                block_q: block,
                block_kv: block,
            });
            let short = AttentionDescriptor {
                shape: shape(3, 300),
                block_mask,
                dtypes: DTypes::all(DType::F16),
                ..Default::default()
            };
            check(&name, &engine, &short, 1);
            let packed = AttentionDescriptor {
                shape: AttentionShape::new(5, 4, 70, 90, 16),
                packed: Some(Packed {
                    tokens_q: 150,
                    tokens_k: 300,
                }),
                block_mask: block_mask.map(|mask| BlockMaskShape { batch: 5, ..mask }),
                mods: MODS,
                ..Default::default()
            };
            // Query, key, value, out and lse, two of cu_seqlens, the mask, its lists and the capture.
            if engine.caps().limits.max_storage_buffers >= 10 {
                check(&name, &engine, &packed, 2);
            }
        }
    }
}

/// The mask of a function, made by the GPU, changes nothing of what the function itself says.
#[test]
fn a_mask_made_from_the_function_changes_nothing() {
    let documents = documents();
    let capture: &[u8] = bytemuck::cast_slice(&documents);
    for (name, engine) in engines() {
        for block in [16, 64, 128] {
            let shape = shape(260, 300);
            let blocks = BlockMaskShape {
                batch: 2,
                heads: 4,
                block_q: block,
                block_kv: block,
            };
            let descriptor = AttentionDescriptor {
                shape,
                mods: MODS,
                ..Default::default()
            };
            let states = engine
                .block_mask(&BlockMaskDescriptor::new(&shape, blocks, MODS), &[capture])
                .unwrap();
            assert!(states.contains(&(BlockState::Closed as u32)) && states.contains(&(BlockState::Partial as u32)));
            let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 4);
            let captures = [capture];
            let out = engine.attention(&descriptor, &inputs.host(&captures)).unwrap().out;
            inputs.block_mask = Some(states);
            let with_blocks = AttentionDescriptor {
                block_mask: Some(blocks),
                ..descriptor
            };
            let again = engine.attention(&with_blocks, &inputs.host(&captures)).unwrap().out;
            let difference = out.iter().zip(&again).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference <= 1e-6, "{name}: {difference}");
        }
    }
}

/// Plans that are cut visit the same tiles.
#[test]
fn cut_plans_visit_the_same_tiles() {
    for (name, engine) in engines() {
        let mut few_trips = engine.caps().clone();
        few_trips.max_loop_trips = Some(300);
        let mut narrow = engine.caps().clone();
        narrow.limits.max_workgroups_per_dimension = 5;
        narrow.max_dispatch_flops = 3e5;
        for caps in [few_trips, narrow] {
            let limited = engine.with_caps(caps);
            for block in [32, 20] {
                let descriptor = AttentionDescriptor {
                    shape: shape(70, 700),
                    block_mask: Some(BlockMaskShape {
                        batch: 1,
                        heads: 4,
                        block_q: block,
                        block_kv: block,
                    }),
                    ..Default::default()
                };
                let plan = limited.plan(&descriptor).unwrap();
                assert!(plan.passes().len() > 2, "{plan}");
                check(&name, &limited, &descriptor, 3);
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let engine = support::engine();
    let blocks = |block_q, block_kv| BlockMaskShape {
        batch: 1,
        heads: 1,
        block_q,
        block_kv,
    };
    let make = |blocks, mods| engine.block_mask(&BlockMaskDescriptor::new(&shape(64, 64), blocks, mods), &[]);
    let zero = make(blocks(0, 16), MODS);
    assert!(
        matches!(zero, Err(Error::ZeroSize { dimension: "block_q" })),
        "{zero:?}"
    );
    let huge = make(blocks(1 << 16, 1 << 16), MODS);
    assert!(matches!(huge, Err(Error::Limit { .. })), "{huge:?}");
    let without = make(blocks(16, 16), wgpu_attention::Mods::default());
    assert!(matches!(without, Err(Error::Unsupported { .. })), "{without:?}");
    let missing = make(blocks(16, 16), MODS);
    assert!(
        matches!(
            missing,
            Err(Error::MissingOperand {
                operand: Operand::Capture(0)
            })
        ),
        "{missing:?}"
    );
    let broken = wgpu_attention::Mods {
        mask_mod: Some("fn mask_mod(batch: u32) -> bool {\n    return batcj == 0u;\n}"),
        ..Default::default()
    };
    let broken = make(blocks(16, 16), broken);
    assert!(
        matches!(
            broken,
            Err(Error::Mod {
                function: "mask_mod",
                line: 2,
                ..
            })
        ),
        "{broken:?}"
    );
    let wrong_heads = AttentionDescriptor {
        shape: shape(64, 64),
        block_mask: Some(BlockMaskShape {
            heads: 3,
            ..blocks(16, 16)
        }),
        ..Default::default()
    };
    assert!(matches!(
        Problem::new(&wrong_heads),
        Err(Error::Shape {
            operand: Operand::BlockMask,
            ..
        })
    ));
}
