//! What a prepared and bound call costs on the CPU: recording it allocates no more than the same wgpu calls made by hand.

#![allow(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait; it hands everything on to the system's"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use support::engines;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Engine, Inputs, Operand, OutputBuffers, Outputs, Problem,
};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is going away allocates too, and nobody asks how often.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread meanwhile.
fn allocations(run: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

/// A kernel that does nothing, with as little around it as wgpu allows.
fn nothing(device: &wgpu::Device) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl("@compute @workgroup_size(1) fn main() {}".into()),
    });
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &[],
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout,
        entries: &[],
    });
    (pipeline, bind_group)
}

/// Allocations of recording a pass of so many dispatches, made by hand.
fn by_hand(device: &wgpu::Device, dispatches: usize) -> u64 {
    // One of its own for each, as in a call: wgpu leaves out what sets the same once more, and with it a growth of its lists.
    let each: Vec<_> = (0..dispatches).map(|_| nothing(device)).collect();
    let mut encoder = device.create_command_encoder(&Default::default());
    allocations(|| {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("attention"),
            timestamp_writes: None,
        });
        for (pipeline, bind_group) in &each {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(1, 1, 1);
        }
    })
}

fn descriptors() -> [AttentionDescriptor<'static>; 3] {
    let shape = AttentionShape::new(1, 8, 33, 260, 64);
    let decode = AttentionShape {
        kv_heads: 2,
        ..AttentionShape::new(1, 8, 1, 2048, 64)
    };
    [
        AttentionDescriptor {
            shape,
            algorithm: Algorithm::Fused,
            ..Default::default()
        },
        AttentionDescriptor {
            shape,
            outputs: Outputs {
                lse: true,
                weights: true,
                ..Default::default()
            },
            ..Default::default()
        },
        AttentionDescriptor {
            shape: decode,
            ..Default::default()
        },
    ]
}

/// Dispatches of a call, and the allocations of recording it.
fn encoding(engine: &Engine, descriptor: &AttentionDescriptor<'_>) -> (usize, u64) {
    let problem = Problem::new(descriptor).unwrap();
    let tensor = |operand| engine.allocate(problem.span_bytes(operand).unwrap_or(4)).unwrap();
    let [query, key, value] = [Operand::Query, Operand::Key, Operand::Value].map(tensor);
    let [out, lse, weights] = [Operand::Out, Operand::Lse, Operand::Weights].map(tensor);
    let outputs = OutputBuffers {
        lse: descriptor.outputs.lse.then_some((&lse).into()),
        weights: descriptor.outputs.weights.then_some((&weights).into()),
        ..OutputBuffers::new(&out)
    };
    let attention = engine.prepare(descriptor).unwrap();
    let bound = attention.bind(&Inputs::new(&query, &key, &value), &outputs).unwrap();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let ours = allocations(|| bound.encode(&mut encoder));
    (attention.plan().passes().len(), ours)
}

#[test]
fn recording_a_call_allocates_nothing_of_ours() {
    // The counter counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8]))), 1);
    for (name, engine) in engines() {
        for descriptor in descriptors() {
            let (dispatches, ours) = encoding(&engine, &descriptor);
            let theirs = by_hand(engine.device(), dispatches);
            assert!(theirs > 0, "{name}: wgpu's own allocations are not seen");
            assert_eq!(ours, theirs, "{name}, {dispatches} dispatches, {descriptor:?}");
        }
    }
}
