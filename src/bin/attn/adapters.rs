//! `attn adapters`: what there is to run on.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wgpu_attention::{DeviceCaps, Engine};

/// Options of `attn adapters`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One adapter.
#[derive(Serialize)]
struct Adapter {
    name: String,
    backend: String,
    driver: String,
    class: String,
    tier: String,
    properties: Vec<Property>,
}

/// A feature or a limit that matters.
#[derive(Serialize)]
struct Property {
    name: &'static str,
    value: String,
    why: &'static str,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let adapters: Vec<_> = wgpu_attention::adapters(None).iter().map(describe).collect();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&adapters)?);
    } else {
        // As engines choose.
        let wanted = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default().to_lowercase();
        let used = adapters
            .iter()
            .position(|adapter| adapter.name.to_lowercase().contains(&wanted));
        for (index, adapter) in adapters.iter().enumerate() {
            print(adapter, used == Some(index));
        }
        if used.is_none() && !adapters.is_empty() {
            anstream::eprintln!("attn: warning: none is named as WGPU_ADAPTER_NAME says: {wanted:?}");
        }
    }
    if adapters.is_empty() {
        // The error says what to do.
        Engine::new()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let caps = DeviceCaps::from_wgpu(&adapter.get_info(), adapter.features(), &adapter.limits())
        .with_matrices(adapter.features(), &adapter.cooperative_matrix_properties());
    let limits = &caps.limits;
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let property = |name, value, why| Property { name, value, why };
    let properties = vec![
        property(
            "storage binding",
            bytes(limits.max_storage_buffer_binding_bytes),
            "larger operands are bound in windows of heads or batches",
        ),
        property(
            "largest buffer",
            bytes(limits.max_buffer_bytes),
            "no tensor may be larger",
        ),
        property(
            "storage buffers",
            limits.max_storage_buffers.to_string(),
            "each operand takes one; four at the least",
        ),
        property(
            "workgroup memory",
            bytes(limits.max_workgroup_bytes.into()),
            "from 32 KiB on the query tile stays there (tier extended)",
        ),
        property(
            "invocations",
            limits.max_invocations.to_string(),
            "of a workgroup; most kernels use 64",
        ),
        property(
            "workgroups",
            limits.max_workgroups_per_dimension.to_string(),
            "along one dimension; larger grids are folded",
        ),
        property(
            "subgroups",
            caps.subgroup_sizes
                .map_or("no".into(), |(least, most)| format!("{least} to {most} lanes")),
            "lanes that share keys or rows reach each other by shuffles",
        ),
        property(
            "f16 in shaders",
            yes_no(caps.shader_f16),
            "halves are loaded, kept and stored as such; sums are f32",
        ),
        property(
            "matrices",
            match caps.matrix_shapes.is_empty() {
                true => "no".into(),
                false => (caps.matrix_shapes.iter().map(ToString::to_string).collect::<Vec<_>>()).join(", "),
            },
            "units that multiply small matrices, which the matrix family uses",
        ),
        property(
            "timestamps",
            yes_no(caps.timestamps),
            "`attn bench` times on the GPU's own clock",
        ),
        property(
            "loop trips",
            caps.max_loop_trips
                .map_or("no limit known".into(), |trips| format!("{trips} an invocation")),
            "some drivers end loops early; long sequences are then visited in several passes",
        ),
        property(
            "work a dispatch",
            format!("{:.0e} operations", caps.max_dispatch_flops),
            "so that no desktop resets the GPU for being busy",
        ),
    ];
    Adapter {
        name: caps.name,
        backend: caps.backend,
        driver: caps.driver,
        class: caps.class.to_string(),
        tier: caps.tier.to_string(),
        properties,
    }
}

fn print(adapter: &Adapter, is_used: bool) {
    let Adapter {
        name,
        backend,
        driver,
        class,
        tier,
        properties,
    } = adapter;
    let chosen = if is_used {
        " (used unless you say otherwise)"
    } else {
        ""
    };
    anstream::println!("{name}{chosen}\n  {backend}, {driver}, {class}, tier {tier}");
    for Property { name, value, why } in properties {
        anstream::println!("  {name:<17} {value:<18} {why}");
    }
    anstream::println!();
}

fn bytes(bytes: u64) -> String {
    match bytes {
        1..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
