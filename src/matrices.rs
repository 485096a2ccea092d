//! Whether a device multiplies matrices right. The feature is experimental, and drivers were seen that double what is carried over
//! a loop: so an engine asks for products that it knows before plans may have the matrix family.

use crate::caps::{DeviceCaps, MatrixShape};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::kernel::operations::{SELF_TEST_SQUARES, matrix_self_test};
use crate::pipeline::PipelineCache;
use crate::readback::{Wait, read_bytes};

/// The capabilities with only those matrices that this device multiplies right; a warning says which it does not.
pub(crate) async fn proven(gpu: &Gpu, mut caps: DeviceCaps, wait: Wait) -> DeviceCaps {
    let mut right = Vec::new();
    for shape in std::mem::take(&mut caps.matrix_shapes) {
        let why = match found(gpu, &caps, shape, wait).await {
            Ok(found) => wrong(shape, &caps, &found),
            Err(error) => Some(error.to_string()),
        };
        match why {
            None => right.push(shape),
            Some(why) => tracing::warn!(adapter = %caps.name, "matrices {shape} are not used: {why}"),
        }
    }
    caps.matrix_shapes = right;
    gpu.reset_memory_peak();
    caps
}

const TRIPS: u32 = 5;
const DOUBLING_TRIP: u32 = 2;

/// The numbers of a and b.
fn given(size: u32) -> [Vec<u32>; 2] {
    let all = |number: fn(u32, u32) -> u32| {
        (0..size * size)
            .map(|at| number(at / size, at % size))
            .collect::<Vec<_>>()
    };
    [
        all(|row, column| (3 * row + 5 * column) % 7),
        all(|row, column| (2 * row + 11 * column) % 9),
    ]
}

/// What the sums must be, by rows: all are whole numbers below 2^16, so exact.
fn expected(size: u32) -> Vec<f32> {
    let [a, b] = given(size);
    let at = |matrix: &[u32], row: u32, column: u32| matrix[(row * size + column) as usize];
    let mut sums = vec![0; (size * size) as usize];
    for trip in 0..TRIPS {
        for (n, sum) in (0..).zip(&mut sums) {
            *sum += (0..size)
                .map(|k| (at(&a, n / size, k) + trip) * at(&b, k, n % size))
                .sum::<u32>();
            if trip == DOUBLING_TRIP {
                *sum *= 2;
            }
        }
    }
    sums.into_iter().map(|sum| (2 * sum) as f32).collect()
}

/// Runs the self-test: the number of subgroups, then the sums of each.
async fn found(gpu: &Gpu, caps: &DeviceCaps, shape: MatrixShape, wait: Wait) -> Result<Vec<f32>> {
    let (_, most) = caps.subgroup_sizes.unwrap_or_default();
    let kernel = matrix_self_test(shape, most);
    let limit = caps.limits.max_invocations;
    if let Some(required) = kernel.constant("THREADS").filter(|&threads| threads > limit) {
        return Err(Error::Limit {
            what: "a workgroup of several subgroups".into(),
            required: required.into(),
            limit_name: "maxComputeInvocationsPerWorkgroup",
            limit: limit.into(),
        });
    }
    let pipeline = PipelineCache::default().get_or_create(gpu, kernel).await?;
    let [a, b] = given(shape.size());
    let words: Vec<u32> = [TRIPS, DOUBLING_TRIP].into_iter().chain(a).chain(b).collect();
    let bytes = 4 * (1 + u64::from(SELF_TEST_SQUARES * shape.size() * shape.size()));
    let storage = wgpu::BufferUsages::STORAGE;
    let given = gpu
        .buffer(
            "matrices",
            4 * words.len() as u64,
            storage,
            Some(bytemuck::cast_slice(&words)),
        )
        .await?;
    let usage = storage | wgpu::BufferUsages::COPY_SRC;
    let found = gpu.buffer("products of matrices", bytes, usage, None).await?;
    let encoder = gpu
        .scoped("test matrices", || {
            let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("matrices"),
                layout: &pipeline.layout,
                entries: &[
                    wgpu::BindGroupEntry {
                        binding: 1,
                        resource: given.buffer.as_entire_binding(),
                    },
                    wgpu::BindGroupEntry {
                        binding: 2,
                        resource: found.buffer.as_entire_binding(),
                    },
                ],
            });
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor {
                label: Some("matrices"),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("matrices"),
                timestamp_writes: None,
            });
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(1, 1, 1);
            drop(pass);
            encoder
        })
        .await?;
    gpu.submit(encoder).await?;
    let bytes = read_bytes(gpu, &found.buffer, bytes, wait).await?;
    Ok(bytemuck::pod_collect_to_vec(&bytes))
}

/// What is wrong with what the self-test found, if anything is.
fn wrong(shape: MatrixShape, caps: &DeviceCaps, found: &[f32]) -> Option<String> {
    let (least, most) = caps.subgroup_sizes.unwrap_or_default();
    let threads = matrix_self_test(shape, most).constant("THREADS")?;
    let (subgroups, sums) = found.split_first()?;
    // The kernels share work among as many subgroups as the sizes allow.
    let counts = [threads / most.max(1), threads / least.max(1)];
    if !(f64::from(counts[0])..=f64::from(counts[1])).contains(&f64::from(*subgroups)) {
        return Some(format!(
            "{threads} invocations are {subgroups} subgroups, not {counts:?}"
        ));
    }
    let expected = expected(shape.size());
    let squares = sums.chunks(expected.len()).take(*subgroups as usize);
    for (subgroup, square) in squares.enumerate() {
        for (at, (found, expected)) in square.iter().zip(&expected).enumerate() {
            if found != expected {
                return Some(format!("subgroup {subgroup}, element {at} is {found}, not {expected}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps() -> DeviceCaps {
        DeviceCaps {
            subgroup_sizes: Some((32, 64)),
            ..Default::default()
        }
    }

    /// What a right device finds, with four subgroups.
    fn right(shape: MatrixShape) -> Vec<f32> {
        let squares = SELF_TEST_SQUARES as usize;
        std::iter::once(4.0)
            .chain(expected(shape.size()).repeat(squares))
            .collect()
    }

    #[test]
    fn products_are_computed_right_here() {
        // By hand: row 0 of a is 0 5 3 1 6 4 2 0, column 0 of b 0 2 4 6 8 1 3 5, with products 86 and sum 29.
        let per_trip = |trip: f32| 86.0 + 29.0 * trip;
        let sums = 2.0 * (per_trip(0.0) + per_trip(1.0) + per_trip(2.0)) + per_trip(3.0) + per_trip(4.0);
        assert_eq!(expected(8)[0], 2.0 * sums);
        assert!(expected(16).iter().all(|&sum| sum < 65_536.0));
    }

    #[test]
    fn planted_faults_are_caught() {
        for shape in MatrixShape::ALL {
            assert_eq!(wrong(shape, &caps(), &right(shape)), None);
            let elements = (shape.size() * shape.size()) as usize;
            for at in [1, elements, 2 * elements, 4 * elements] {
                for fault in [|sum: f32| 2.0 * sum, |sum: f32| sum + 1.0, |_: f32| f32::NAN] {
                    let mut found = right(shape);
                    found[at] = fault(found[at]);
                    assert!(wrong(shape, &caps(), &found).is_some(), "{shape}, {at}");
                }
            }
            let mut found = right(shape);
            found[0] = 1.0;
            assert!(wrong(shape, &caps(), &found).is_some(), "too few subgroups");
        }
    }
}
