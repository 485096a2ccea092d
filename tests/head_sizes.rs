//! Every size of heads. Each compiles kernels of its own, so the tests take small ones and those at the edges of tiles;
//! `ATTN_ALL_HEAD_DIMS=1 cargo test --test head_sizes` takes all from 1 to 576, which is minutes on a slow compiler.

mod support;

use support::engines;
use support::run::check;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, DType, DTypes, DeviceCaps, Outputs, Plan, Problem, Tier,
};

/// That of the latent of multi-head latent attention with its rotary part, the largest in use.
const LARGEST: u32 = 576;

/// All sizes if they are asked for, else these.
fn sizes(some: impl IntoIterator<Item = u32>) -> Vec<u32> {
    match std::env::var_os("ATTN_ALL_HEAD_DIMS").is_some_and(|all| all == "1") {
        true => (1..=LARGEST).collect(),
        false => some.into_iter().collect(),
    }
}

/// Few rows and keys, so that the time is that of the compiler. The second head of an odd size begins at an odd place.
fn of_size(head_dim: u32, head_dim_v: u32) -> AttentionDescriptor<'static> {
    AttentionDescriptor {
        shape: AttentionShape {
            kv_heads: 1,
            head_dim_v,
            ..AttentionShape::new(2, 2, 2, 3, head_dim)
        },
        outputs: Outputs {
            lse: true,
            ..Default::default()
        },
        algorithm: Algorithm::Fused,
        ..Default::default()
    }
}

/// Checks each descriptor on one of the engines, in turn: neighbours in size on different tiers.
fn check_in_turn(descriptors: impl IntoIterator<Item = AttentionDescriptor<'static>>) {
    let engines = engines();
    for (seed, descriptor) in descriptors.into_iter().enumerate() {
        let (name, engine) = &engines[seed % engines.len()];
        check(name, engine, &descriptor, seed as u64);
    }
}

#[test]
fn every_size_is_right() {
    // All that is left over of a vec4, and both sides of the edges that tiles have: 32 channels are staged at a time, 128 of
    // value make a workgroup.
    let small = (1..=9).chain(15..=17).chain(31..=33).chain([62, 63, 64, 65, 96, 97]);
    let large = (127..=130)
        .chain(255..=257)
        .chain([383, 384, 386])
        .chain(511..=513)
        .chain([575, LARGEST]);
    let sizes = sizes(small.chain(large));
    check_in_turn(sizes.into_iter().map(|size| of_size(size, size)));
}

#[test]
fn every_size_of_halves_is_right() {
    let sizes = sizes([1, 2, 3, 5, 8, 13, 31, 64, 80, 97, 128, 191, 256, 300, 512, 575]);
    check_in_turn(sizes.into_iter().map(|size| AttentionDescriptor {
        dtypes: DTypes::all(DType::F16),
        ..of_size(size, size)
    }));
}

#[test]
fn every_size_is_right_in_three_kernels() {
    let sizes = sizes([1, 2, 3, 4, 7, 10, 33, 64, 95, 128, 193, 257, 510, 576]);
    check_in_turn(sizes.into_iter().map(|size| AttentionDescriptor {
        algorithm: Algorithm::ThreeKernels,
        ..of_size(size, size)
    }));
}

/// Values narrower and wider than keys, those of multi-head latent attention first: without and with its latent absorbed.
#[test]
fn values_may_have_a_size_of_their_own() {
    let sizes = [
        (192, 128),
        (576, 512),
        (1, 7),
        (7, 1),
        (20, 129),
        (130, 3),
        (65, 64),
        (256, 260),
    ];
    let descriptors = sizes.into_iter().flat_map(|(head_dim, head_dim_v)| {
        [Algorithm::Fused, Algorithm::ThreeKernels].map(|algorithm| AttentionDescriptor {
            algorithm,
            ..of_size(head_dim, head_dim_v)
        })
    });
    // Each both ways on the same engine.
    let engines = engines();
    for (number, descriptor) in descriptors.enumerate() {
        let (name, engine) = &engines[number / 2 % engines.len()];
        check(name, engine, &descriptor, number as u64);
    }
}

/// A size between multiples of four has the tile, the loops and the memory of the next one.
#[test]
fn sizes_between_cost_the_next_multiple_of_four() {
    let mut extended = DeviceCaps {
        tier: Tier::Extended,
        ..Default::default()
    };
    extended.limits.max_workgroup_bytes = 32 << 10;
    for caps in [DeviceCaps::default(), extended] {
        for algorithm in [Algorithm::Fused, Algorithm::ThreeKernels] {
            for rows in [1, 512] {
                for size in 1..=LARGEST {
                    let plan = |size: u32| {
                        let descriptor = AttentionDescriptor {
                            shape: AttentionShape::new(1, 8, rows, 512, size),
                            algorithm,
                            ..Default::default()
                        };
                        Plan::new(&Problem::new(&descriptor).unwrap(), &caps).unwrap()
                    };
                    assert_same_cost(&plan(size), &plan(size.next_multiple_of(4)));
                }
            }
        }
    }
}

fn assert_same_cost(plan: &Plan, next: &Plan) {
    let (shape, next_shape) = (plan.problem().shape(), next.problem().shape());
    let [size, next_size] = [shape.head_dim, next_shape.head_dim];
    assert_eq!(plan.tile(), next.tile(), "{size}");
    assert_eq!(plan.workspace(), next.workspace(), "{size}");
    let tile = plan.tile();
    assert_eq!(
        tile.workgroup_bytes(&shape),
        tile.workgroup_bytes(&next_shape),
        "{size}"
    );
    assert_eq!(
        tile.trips_per_tile(plan.problem()),
        tile.trips_per_tile(next.problem()),
        "{size}"
    );
    assert_eq!(plan.passes().len(), next.passes().len(), "{size}");
    for (pass, next_pass) in plan.passes().iter().zip(next.passes()) {
        assert_eq!(
            (pass.skeleton, &pass.region, pass.workgroups),
            (next_pass.skeleton, &next_pass.region, next_pass.workgroups),
            "{size}"
        );
        let (kernel, next_kernel) = (plan.kernel(pass), next.kernel(next_pass));
        let constants = kernel.constants().iter().zip(next_kernel.constants());
        let differing: Vec<_> = constants.filter(|(one, other)| one != other).collect();
        // The sizes themselves, by which loads know where a row ends.
        for ((name, value), (next_name, next_value)) in &differing {
            assert_eq!(name, next_name);
            assert!(
                ["HEAD_DIM", "HEAD_DIM_V"].contains(name),
                "{name} of {size} and {next_size}"
            );
            assert_eq!((*value, *next_value), (size, next_size));
        }
        assert_eq!(kernel.constants().len(), next_kernel.constants().len(), "{size}");
    }
}
