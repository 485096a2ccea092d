//! `attn demo`: what a real model looks at.

mod activations;
mod map;
mod picture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    AttentionDescriptor, AttentionShape, Engine, HostInputs, Inputs, OutputBuffers, Outputs, Problem,
};

use crate::check::Check;
use crate::device::{DeviceOptions, describe};
use crate::files;
use activations::{Activations, LAYERS};
use map::Map;

/// Options of `attn demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Layer of the model: 0, 2 or 4
    #[arg(long, default_value_t = 0)]
    layer: u32,
    /// A head's number from 1, `all`, or `average`
    #[arg(long, default_value = "average", value_name = "HEAD")]
    head: Heads,
    /// Write the heat maps as a picture
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Which heads to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Heads {
    All,
    Average,
    One(u32),
}

impl FromStr for Heads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Heads::All),
            "average" => Ok(Heads::Average),
            number => match number.parse() {
                Ok(head) if head > 0 => Ok(Heads::One(head)),
                _ => Err("expected a number from 1, `all` or `average`".into()),
            },
        }
    }
}

/// What was computed and how it compares.
#[derive(Serialize)]
struct Computed {
    adapter: String,
    /// `[heads, tokens, tokens]`.
    weights: Vec<f32>,
    #[serde(flatten)]
    check: Check,
    median_ms: f64,
    runs: usize,
}

#[derive(Serialize)]
struct Summary<'a> {
    model: &'a str,
    layer: u32,
    sentence: &'a str,
    tokens: &'a [String],
    heads: u32,
    head_dim: u32,
    /// For each token, the tokens that it looks at most, in the map shown.
    top: Vec<Vec<(String, f32)>>,
    #[serde(flatten)]
    computed: &'a Computed,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let activations = Activations::of_layer(arguments.layer)
        .map_err(|error| error.context(format!("--layer takes one of {LAYERS:?}")))?;
    if let Heads::One(head) = arguments.head {
        anyhow::ensure!(
            head <= activations.heads,
            "--head {head}: the model has heads 1 to {}",
            activations.heads
        );
    }
    if let Some(path) = &arguments.png {
        files::check_writable(path)?;
    }
    let engine = arguments.device.engine()?;
    let computed = compute(&engine, &activations)?;
    let maps = maps(&activations, &computed.weights, arguments.head);
    // With all heads on show, the words are named from their average.
    let summed = average(&activations, &computed.weights);
    let named = if maps.len() == 1 { &maps[0] } else { &summed };

    let title = format!("\"{}\", layer {}", activations.sentence, arguments.layer);
    if let Some(path) = &arguments.png {
        files::write_whole(path, &picture::png(&title, &maps)?)?;
    }
    if arguments.json {
        let summary = summary(arguments.layer, &activations, &computed, named);
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        anstream::println!("{title} of {}, on the GPU\n", activations.model);
        print_maps(&maps);
        print_words(named);
        if let Some(path) = &arguments.png {
            anstream::println!("wrote {}", path.display());
        }
    }
    let right = computed.check.is_right();
    if !arguments.json {
        let Check {
            max_error,
            allowed_error,
        } = computed.check;
        let Computed {
            median_ms,
            runs,
            adapter,
            ..
        } = &computed;
        let verdict = if right { "ok" } else { "WRONG" };
        anstream::println!(
            "largest difference from the CPU reference: {max_error:.1e} (allowed {allowed_error:.1e}): {verdict}"
        );
        anstream::println!(
            "{median_ms:.3} ms a call (median of {runs}) for {} heads x {} words x {} channels on {adapter}",
            activations.heads,
            activations.tokens.len(),
            activations.head_dim,
        );
    }
    if !right {
        anstream::eprintln!("attn: the GPU's weights are wrong; please report this adapter and driver");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn compute(engine: &Engine, activations: &Activations) -> anyhow::Result<Computed> {
    const RUNS: usize = 50;
    let tokens = u32::try_from(activations.tokens.len())?;
    let descriptor = AttentionDescriptor {
        label: Some("demo"),
        shape: AttentionShape::new(1, activations.heads, tokens, tokens, activations.head_dim),
        outputs: Outputs {
            weights: true,
            ..Default::default()
        },
        ..Default::default()
    };
    let inputs = HostInputs::new(&activations.query, &activations.key, &activations.value);
    let output = engine.attention(&descriptor, &inputs)?;
    let weights = output.weights.unwrap_or_default();

    let problem = Problem::new(&descriptor)?;
    let want = reference::attention(&problem, &inputs)?;
    let naive = reference::attention_in(Precision::F32, &problem, &inputs)?;
    let check = Check::new(&weights, &want.weights, &naive.weights);
    let check = check.worse(Check::new(&output.out, &want.out, &naive.out));

    let attention = engine.prepare(&descriptor)?;
    let tensors = [
        engine.upload(&activations.query)?,
        engine.upload(&activations.key)?,
        engine.upload(&activations.value)?,
    ];
    let out = engine.allocate(4 * inputs.query.len() as u64)?;
    let weights_out = engine.allocate(4 * weights.len() as u64)?;
    let bound = attention.bind(
        &Inputs::new(&tensors[0], &tensors[1], &tensors[2]),
        &OutputBuffers {
            weights: Some((&weights_out).into()),
            ..OutputBuffers::new(&out)
        },
    )?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        engine.run(&bound)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let adapter = describe(engine);
    Ok(Computed {
        adapter,
        weights,
        check,
        median_ms: times[RUNS / 2],
        runs: RUNS,
    })
}

fn maps<'a>(activations: &'a Activations, weights: &[f32], heads: Heads) -> Vec<Map<'a>> {
    let size = activations.tokens.len() * activations.tokens.len();
    let head = |index: usize| Map {
        title: format!("head {}", index + 1),
        tokens: &activations.tokens,
        weights: weights[index * size..(index + 1) * size].to_vec(),
    };
    match heads {
        Heads::All => (0..activations.heads as usize).map(head).collect(),
        Heads::One(number) => vec![head(number as usize - 1)],
        Heads::Average => vec![average(activations, weights)],
    }
}

fn average<'a>(activations: &'a Activations, weights: &[f32]) -> Map<'a> {
    let size = activations.tokens.len() * activations.tokens.len();
    let heads = activations.heads as f32;
    let mean = |index: usize| weights.iter().skip(index).step_by(size).sum::<f32>() / heads;
    Map {
        title: format!("average of {} heads", activations.heads),
        tokens: &activations.tokens,
        weights: (0..size).map(mean).collect(),
    }
}

fn print_maps(maps: &[Map<'_>]) {
    if let [map] = maps {
        anstream::println!(
            "{}: how much each word (row) looks at each word (column), in percent\n",
            map.title
        );
        for line in map.wide_lines() {
            anstream::println!("  {line}");
        }
    } else {
        anstream::println!(
            "each word's row shows which words (columns, in the same order) it looks at; brighter is more\n"
        );
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|columns| columns.parse().ok())
            .unwrap_or(100);
        let width = maps.first().map_or(1, Map::narrow_width) + 3;
        for row in maps.chunks((columns / width).max(1)) {
            let blocks: Vec<_> = row.iter().map(Map::narrow_lines).collect();
            for line in 0..blocks[0].len() {
                let joined: Vec<_> = blocks.iter().map(|block| block[line].as_str()).collect();
                anstream::println!("  {}", joined.join("   "));
            }
            anstream::println!();
        }
    }
    anstream::println!();
}

fn print_words(map: &Map<'_>) {
    anstream::println!("what each word looks at most ({}):", map.title);
    let width = map.tokens.iter().map(String::len).max().unwrap_or(0);
    for (row, token) in map.tokens.iter().enumerate() {
        let words: Vec<_> = map
            .top(row, 3)
            .into_iter()
            .filter(|&(_, weight)| weight >= 0.005)
            .map(|(column, weight)| format!("{} {:.0} %", map.tokens[column], weight * 100.0))
            .collect();
        anstream::println!("  {token:>width$}  {}", words.join(", "));
    }
    anstream::println!();
}

fn summary<'a>(layer: u32, activations: &'a Activations, computed: &'a Computed, named: &Map<'_>) -> Summary<'a> {
    let word = |(column, weight): (usize, f32)| (activations.tokens[column].clone(), weight);
    Summary {
        model: &activations.model,
        layer,
        sentence: &activations.sentence,
        tokens: &activations.tokens,
        heads: activations.heads,
        head_dim: activations.head_dim,
        top: (0..activations.tokens.len())
            .map(|row| named.top(row, 3).into_iter().map(word).collect())
            .collect(),
        computed,
    }
}
