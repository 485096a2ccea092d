//! Rotary embedding, then attention: only the distance of two positions counts.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use wgpu_attention::{RopeAngles, RopeConfig, RopeDescriptor, RopeFrequencies, RopeHostInputs, RopePositions};

use super::*;

#[test]
fn rotated_queries_and_keys_may_begin_anywhere() {
    for_cases(6, |case| {
        let shape = case.shape;
        let request = Request::random(case.causal(), case.seed);
        let frequencies = RopeFrequencies::new(&RopeConfig::new(shape.head_dim)).unwrap();
        let rotated = |engine: &Engine, numbers: &Numbers, heads: u32, seqlen: u32, first: i32| {
            let descriptor = RopeDescriptor {
                positions: RopePositions::Offset(first),
                ..RopeDescriptor::new(
                    [shape.batch, heads, seqlen, shape.head_dim],
                    RopeAngles::Frequencies(&frequencies),
                )
            };
            let x = numbers.clone().singles().clone();
            let inputs = RopeHostInputs {
                x: &x,
                ..Default::default()
            };
            engine.rope(&descriptor, &inputs).unwrap()
        };
        let begin = StdRng::seed_from_u64(case.seed).random_range(-100_000..100_000);
        for (name, engine) in case.engines() {
            let at = |first: i32| {
                let inputs = OwnedInputs {
                    query: Numbers::F32(rotated(
                        engine,
                        &request.inputs.query,
                        shape.heads,
                        shape.seqlen_q,
                        first,
                    )),
                    key: Numbers::F32(rotated(
                        engine,
                        &request.inputs.key,
                        shape.kv_heads,
                        shape.seqlen_k,
                        first,
                    )),
                    ..request.inputs.clone()
                };
                Request::new(case.causal(), inputs)
            };
            let [mut near, far] = [0, begin].map(at);
            // A channel is off by cos and sin's error, 1e-7, and three roundings of 6e-8, relative to its pair's length; a
            // score is the sum of products of two such vectors, each of them rotated twice: near and far.
            let length = |numbers: &mut Numbers| {
                let rows = numbers.singles().chunks_exact(shape.head_dim as usize);
                rows.map(|row| row.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt())
                    .fold(0.0, f64::max)
            };
            let lengths = length(&mut near.inputs.query) * length(&mut near.inputs.key);
            let score_error = 4.0 * 3e-7 * lengths / f64::from(shape.head_dim).sqrt();
            let wanted = Wanted::new([&near, &far], score_error);
            for algorithm in BOTH {
                wanted.check(
                    &format!("{name}, {algorithm:?}, from {begin}"),
                    &far.run(engine, algorithm),
                )?;
            }
            // And the distance does count.
            if shape.seqlen_q > 3 && shape.seqlen_k > 3 {
                let inputs = OwnedInputs {
                    key: Numbers::F32(rotated(engine, &request.inputs.key, shape.kv_heads, shape.seqlen_k, 1)),
                    ..near.inputs.clone()
                };
                let moved = Request::new(case.causal(), inputs).run(engine, Algorithm::Fused);
                prop_assert!(wanted.check("moved keys", &moved).is_err());
            }
        }
        Ok(())
    });
}
