//! `attn`: look at attention, measure it, check it.

#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod adapters;
mod bench;
mod check;
mod demo;
mod device;
mod files;
mod fuzz;
mod shaders;
mod tune;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Attention on any GPU that wgpu reaches.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "The environment's WGPU_ADAPTER_NAME and WGPU_BACKEND choose the adapter."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a real model looks at: weights of "The cat sat on the mat", computed on the GPU
    Demo(demo::Arguments),
    /// List the adapters, and what matters of them
    Adapters(adapters::Arguments),
    /// Measure: three kernels, one fused kernel and the CPU, against the device's own limits
    Bench(bench::Arguments),
    /// Measure which kernels are fastest on this device, and save that for engines to use
    Tune(tune::Arguments),
    /// Run the cases of an oracle folder and compare with the expected outputs
    Verify(verify::Arguments),
    /// Draw random requests, right and wrong, and check that each gives a right answer or the error that it deserves
    Fuzz(fuzz::Arguments),
    /// Write out kernels as WGSL, SPIR-V, MSL and HLSL, for other compilers and other engines
    Shaders(shaders::Arguments),
}

fn main() -> ExitCode {
    // Output that `head` does not want is no failure.
    sigpipe::reset();
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Adapters(arguments) => adapters::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Shaders(arguments) => shaders::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("attn: {error:#}");
            ExitCode::FAILURE
        }
    }
}
