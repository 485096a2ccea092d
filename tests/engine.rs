//! The ways to run, memory, and what becomes of wgpu's own errors.

mod support;

use support::{OwnedInputs, engines};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Engine, EngineDescriptor, Error, Inputs, Operand, OutputBuffers,
    Outputs, Problem,
};

const SHAPE: AttentionShape = AttentionShape::new(1, 2, 33, 40, 16);

fn descriptor() -> AttentionDescriptor<'static> {
    AttentionDescriptor {
        shape: SHAPE,
        outputs: Outputs {
            lse: true,
            weights: true,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// A device that the caller made, on every adapter.
fn shared_devices() -> Vec<(wgpu::Device, Engine)> {
    let share = |adapter: &wgpu::Adapter| {
        let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
        (device.clone(), Engine::from_wgpu(adapter, device, queue))
    };
    wgpu_attention::adapters(None).iter().map(share).collect()
}

#[test]
fn every_way_to_run_gives_the_same() {
    for (name, engine) in engines() {
        let problem = Problem::new(&descriptor()).unwrap();
        let inputs = OwnedInputs::random(&problem, 1);
        let once = engine.attention(&descriptor(), &inputs.host(&[])).unwrap();
        let waited = pollster::block_on(engine.attention_async(&descriptor(), &inputs.host(&[]))).unwrap();
        assert_eq!(once, waited, "{name}");

        let attention = engine.prepare(&descriptor()).unwrap();
        let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value]
            .map(|numbers| engine.upload_bytes(numbers.host().bytes()).unwrap());
        let inputs = Inputs::new(&query, &key, &value);
        let tensors = attention.run(&inputs).unwrap();
        assert_eq!(engine.read(&tensors.out).unwrap(), once.out, "{name}");
        let tensors = pollster::block_on(attention.run_async(&inputs)).unwrap();
        assert_eq!(engine.read(&tensors.out).unwrap(), once.out, "{name}");
        let lse = pollster::block_on(engine.read_async(&tensors.lse.unwrap())).unwrap();
        assert_eq!(Some(lse), once.lse, "{name}");
    }
}

/// Recording is the caller's: nothing runs before they submit, nothing is made, and one bound call is good for many frames.
#[test]
fn encoding_makes_nothing_and_submits_nothing() {
    for (name, engine) in engines() {
        let problem = Problem::new(&descriptor()).unwrap();
        let inputs = OwnedInputs::random(&problem, 2);
        let want = engine.attention(&descriptor(), &inputs.host(&[])).unwrap().out;
        let attention = engine.prepare(&descriptor()).unwrap();
        let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value]
            .map(|numbers| engine.upload_bytes(numbers.host().bytes()).unwrap());
        let output = |operand| engine.allocate(problem.span_bytes(operand).unwrap()).unwrap();
        let (out, lse, weights) = (output(Operand::Out), output(Operand::Lse), output(Operand::Weights));
        let outputs = OutputBuffers {
            lse: Some((&lse).into()),
            weights: Some((&weights).into()),
            ..OutputBuffers::new(&out)
        };
        let bound = attention.bind(&Inputs::new(&query, &key, &value), &outputs).unwrap();

        engine.reset_memory_peak();
        let before = engine.memory();
        let allocations = || {
            let report = engine.device().generate_allocator_report();
            report.map(|report| report.allocations.len())
        };
        engine.wait().unwrap();
        let allocated = allocations();
        for frame in 0..3 {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            bound.encode(&mut encoder);
            let commands = encoder.finish();
            assert_eq!(engine.memory(), before, "{name}");
            // Fewer, when something from before has gone in the meantime.
            assert!(allocations() <= allocated, "{name}");
            if frame == 0 {
                engine.wait().unwrap();
                assert!(engine.read(&out).unwrap().iter().all(|&number| number == 0.0), "{name}");
                engine.reset_memory_peak();
            }
            engine.queue().submit([commands]);
        }
        assert_eq!(engine.read(&out).unwrap(), want, "{name}");
    }
}

/// What one call needs besides its operands: with 16,384 tokens and 8 heads the scores would take 8 GiB.
#[test]
fn the_fused_kernel_stores_no_scores() {
    for (name, engine) in engines() {
        let descriptor = AttentionDescriptor {
            shape: AttentionShape::new(1, 8, 16_384, 16_384, 64),
            algorithm: Algorithm::Fused,
            outputs: Outputs {
                lse: true,
                weights: false,
                ..Default::default()
            },
            ..Default::default()
        };
        let problem = Problem::new(&descriptor).unwrap();
        let tensor = |operand| engine.allocate(problem.span_bytes(operand).unwrap()).unwrap();
        let [query, key, value, out, lse] =
            [Operand::Query, Operand::Key, Operand::Value, Operand::Out, Operand::Lse].map(tensor);
        let operands = engine.memory().current_bytes;
        let attention = engine.prepare(&descriptor).unwrap();
        let outputs = OutputBuffers {
            lse: Some((&lse).into()),
            ..OutputBuffers::new(&out)
        };
        let bound = attention.bind(&Inputs::new(&query, &key, &value), &outputs).unwrap();
        let extra = engine.memory().peak_bytes - operands;
        assert!(extra < 16 << 20, "{name}: {extra} bytes besides the operands");
        drop((attention, bound));
        assert_eq!(engine.memory().current_bytes, operands, "{name}");
    }
}

#[test]
fn a_missing_adapter_is_named() {
    let wanted = EngineDescriptor {
        adapter_name: Some("no such adapter"),
        ..Default::default()
    };
    match Engine::with(&wanted) {
        Err(Error::NoAdapter { message }) => assert!(message.contains("no such adapter"), "{message}"),
        other => panic!("{other:?}"),
    }
    let nowhere = EngineDescriptor {
        backends: Some(wgpu::Backends::empty()),
        ..Default::default()
    };
    assert!(matches!(Engine::with(&nowhere), Err(Error::NoAdapter { .. })));
}

/// A lost device is its own error, of every call, whoever made the device.
#[test]
fn a_lost_device_is_said_to_be_lost() {
    let mut all = shared_devices();
    for adapter in wgpu_attention::adapters(None) {
        let engine = pollster::block_on(Engine::from_adapter(&adapter)).unwrap();
        all.push((engine.device().clone(), engine));
    }
    for (device, engine) in all {
        let problem = Problem::new(&descriptor()).unwrap();
        let inputs = OwnedInputs::random(&problem, 3);
        let tensor = engine.upload_bytes(inputs.query.host().bytes()).unwrap();
        device.destroy();
        let errors = [
            engine.attention(&descriptor(), &inputs.host(&[])).err(),
            engine.upload_bytes(inputs.query.host().bytes()).err(),
            engine.wait().err(),
            engine.read(&tensor).err(),
        ];
        for error in errors {
            assert!(matches!(error, Some(Error::DeviceLost { .. })), "{error:?}");
        }
    }
}

/// Buffers of another device are wgpu's to refuse, and the refusal is an error of ours.
#[test]
fn what_wgpu_refuses_is_an_error() {
    let adapter = wgpu_attention::adapters(None).remove(0);
    let [engine, other] = [(); 2].map(|()| pollster::block_on(Engine::from_adapter(&adapter)).unwrap());
    let attention = engine
        .prepare(&AttentionDescriptor {
            shape: AttentionShape::new(1, 1, 4, 4, 4),
            ..Default::default()
        })
        .unwrap();
    let [query, key, out] = [64; 3].map(|bytes| engine.allocate(bytes).unwrap());
    let value = other.allocate(64).unwrap();
    let bound = attention.bind(&Inputs::new(&query, &key, &value), &OutputBuffers::new(&out));
    assert!(matches!(bound, Err(Error::Validation { .. })), "{bound:?}");
    // The engine goes on as if nothing had been.
    let value = engine.allocate(64).unwrap();
    attention.run(&Inputs::new(&query, &key, &value)).unwrap();
}

#[test]
fn a_buffer_beyond_the_limit_is_an_error() {
    for (name, engine) in engines() {
        let limit = engine.device().limits().max_buffer_size;
        match engine.allocate(limit + 4) {
            Err(Error::Limit {
                limit_name: "maxBufferSize",
                limit: found,
                ..
            }) => assert_eq!(found, limit, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Set in the process that is given little memory.
const STARVED: &str = "WGPU_ATTENTION_TEST_STARVED";

/// A software driver takes its memory from the process, so a process with a limit shows what becomes of a driver without
/// any left. (On a real GPU the test would have to fill it, which is not for a test to do.)
#[cfg(target_os = "linux")]
#[test]
fn running_out_of_memory_is_an_error() {
    let mut adapters = wgpu_attention::adapters(None).into_iter();
    let Some(adapter) = adapters.find(|adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu) else {
        return;
    };
    if std::env::var_os(STARVED).is_none() {
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                "ulimit -v 6000000 && exec \"$0\" --exact running_out_of_memory_is_an_error",
            ])
            .arg(std::env::current_exe().unwrap())
            .env(STARVED, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let engine = pollster::block_on(Engine::from_adapter(&adapter)).unwrap();
    let bytes = engine.caps().limits.max_buffer_bytes.min(2 << 30) / 4 * 4;
    let tensors: Vec<_> = (0..8).map(|_| engine.allocate(bytes)).collect();
    assert!(tensors[0].is_ok(), "{:?}", tensors[0]);
    let last = tensors.last().unwrap();
    assert!(matches!(last, Err(Error::OutOfMemory { .. })), "{last:?}");
    // Once there is memory again, the engine goes on.
    drop(tensors);
    engine.wait().unwrap();
    engine.allocate(bytes).unwrap();
}
