//! What a block mask saves: one fused kernel's time against the share of blocks that are not closed.

use std::time::Duration;

use anyhow::ensure;
use comfy_table::{Table, presets};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use wgpu_attention::reference::{self, Precision, ReferenceMods};
use wgpu_attention::{
    Attention, AttentionDescriptor, AttentionShape, BlockMaskDescriptor, BlockMaskShape, BlockState, BoundAttention,
    BufferAt, Capture, CaptureElement, Engine, HostInputs, Inputs, Mods, OutputBuffers, Problem, Tensor,
};

use super::stopwatch::{Lap, Stopwatch, Times, in_turn};
use crate::check::Check;

/// Each position sees those of its own document.
const MASK_MOD: &str = "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return q_idx / document[0] == kv_idx / document[0];
}";
const CAPTURES: &[Capture<'static>] = &[Capture {
    name: "document",
    element: CaptureElement::U32,
    len: 1,
}];
const MODS: Mods<'static> = Mods {
    score_mod: None,
    mask_mod: Some(MASK_MOD),
    prob_mod: None,
    captures: CAPTURES,
};
const BLOCK: u32 = 128;

/// One line: documents of equal length, whose blocks lie along the diagonal.
#[derive(Debug, Serialize)]
pub struct Row {
    pub documents: u32,
    /// Of all blocks, those that are partial or open.
    pub share_open: f64,
    pub times: Times,
    /// Of the time without any mask.
    pub share_of_time: f64,
    pub right: bool,
}

/// One number of documents, ready to run.
struct Job {
    documents: u32,
    share_open: f64,
    right: bool,
    bound: BoundAttention,
    _kept: (Attention, Vec<Tensor>),
}

/// Measures sequences of this length, 8 heads of 64 channels, with 1, 2, 4 ... documents, beside no mask at all.
pub fn measure(engine: &Engine, stopwatch: &Stopwatch<'_>, seqlen: u32, budget: Duration) -> anyhow::Result<Vec<Row>> {
    ensure!(
        seqlen >= BLOCK && seqlen.is_multiple_of(BLOCK),
        "a multiple of {BLOCK} is expected for --blocks"
    );
    let shape = AttentionShape::new(1, 8, seqlen, seqlen, 64);
    let mut rng = StdRng::seed_from_u64(1);
    let mut numbers = || -> Vec<f32> {
        (0..u64::from(8 * seqlen) * 64)
            .map(|_| rng.random_range(-1.0f32..1.0))
            .collect()
    };
    let host = [numbers(), numbers(), numbers()];
    let mut jobs = vec![job(engine, shape, &host, None)?];
    let mut documents = 1;
    while documents <= seqlen / BLOCK {
        jobs.push(job(engine, shape, &host, Some(documents))?);
        documents *= 2;
    }
    let laps: Vec<Vec<Lap>> = in_turn(budget, jobs.len(), |index| stopwatch.attention(&jobs[index].bound))?;
    let times: Vec<_> = laps.iter().map(|laps| Times::of(laps)).collect();
    let plain_ms = times[0].median_ms;
    let rows = jobs.iter().zip(times).map(|(job, times)| Row {
        documents: job.documents,
        share_open: job.share_open,
        share_of_time: times.median_ms / plain_ms,
        right: job.right,
        times,
    });
    Ok(rows.collect())
}

fn job(engine: &Engine, shape: AttentionShape, host: &[Vec<f32>; 3], documents: Option<u32>) -> anyhow::Result<Job> {
    let length = documents.map_or(shape.seqlen_k, |documents| shape.seqlen_k / documents);
    let blocks = BlockMaskShape {
        batch: 1,
        heads: 1,
        block_q: BLOCK,
        block_kv: BLOCK,
    };
    let mods = if documents.is_some() { MODS } else { Mods::default() };
    let descriptor = AttentionDescriptor {
        label: Some("blocks"),
        shape,
        mods,
        block_mask: documents.map(|_| blocks),
        ..Default::default()
    };
    let capture = engine.upload_bytes(&length.to_le_bytes())?;
    let captures = [BufferAt::from(&capture)];
    let mut kept = Vec::new();
    for data in host {
        kept.push(engine.upload(data)?);
    }
    let out = engine.allocate(kept[0].bytes())?;
    let mut share_open = 1.0;
    let mut inputs = Inputs::new(&kept[0], &kept[1], &kept[2]);
    let states;
    let mut host_states = None;
    if documents.is_some() {
        let builder = engine.prepare_block_mask(&BlockMaskDescriptor::new(&shape, blocks, MODS))?;
        states = builder.run(&captures)?;
        inputs.block_mask = Some((&states).into());
        inputs.captures = &captures;
        let list: Vec<u32> = engine.read(&states)?.into_iter().map(f32::to_bits).collect();
        let open = list.iter().filter(|&&state| state != BlockState::Closed as u32).count();
        share_open = open as f64 / list.len() as f64;
        host_states = Some(list);
    }
    let attention = engine.prepare(&descriptor)?;
    let bound = attention.bind(&inputs, &OutputBuffers::new(&out))?;
    engine.run(&bound)?;
    let right = is_right(&descriptor, host, host_states.as_deref(), length, &engine.read(&out)?)?;
    kept.extend([out, capture]);
    Ok(Job {
        documents: documents.unwrap_or(0),
        share_open,
        right,
        bound,
        _kept: (attention, kept),
    })
}

/// Checks a few rows with the reference.
fn is_right(
    descriptor: &AttentionDescriptor<'_>,
    host: &[Vec<f32>; 3],
    states: Option<&[u32]>,
    length: u32,
    out: &[f32],
) -> anyhow::Result<bool> {
    let problem = Problem::new(descriptor)?;
    let bytes = length.to_le_bytes();
    let captures: [&[u8]; 1] = [&bytes];
    let inputs = HostInputs {
        block_mask: states,
        captures: if states.is_some() { &captures } else { &[] },
        ..HostInputs::new(&host[0], &host[1], &host[2])
    };
    let mask_mod = |[_, _, q_idx, kv_idx]: [u32; 4]| q_idx / length == kv_idx / length;
    let mods = ReferenceMods {
        mask_mod: if states.is_some() { Some(&mask_mod) } else { None },
        ..Default::default()
    };
    let seqlen = descriptor.shape.seqlen_q;
    let positions = [[0, 0, 0], [0, 3, seqlen / 2], [0, 7, seqlen - 1]];
    let rows = |precision| reference::rows_with(precision, &problem, &inputs, &mods, &positions);
    let flat = |rows: Vec<reference::ReferenceRow>| rows.into_iter().flat_map(|row| row.out).collect::<Vec<f64>>();
    let (want, naive) = (flat(rows(Precision::F64)?), flat(rows(Precision::F32)?));
    let got: Vec<f32> = (positions.iter())
        .flat_map(|[_, head, row]| {
            let at = (head * seqlen + row) as usize * 64;
            out[at..at + 64].iter().copied()
        })
        .collect();
    Ok(Check::new(&got, &want, &naive).is_right())
}

/// Prints the rows as a table.
pub fn print(rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "documents",
        "blocks not closed",
        "ms",
        "share of the unmasked time",
        "right",
    ]);
    for row in rows {
        table.add_row([
            match row.documents {
                0 => "no mask".to_owned(),
                documents => documents.to_string(),
            },
            format!("{:.1} %", 100.0 * row.share_open),
            format!("{:.3}", row.times.median_ms),
            format!("{:.1} %", 100.0 * row.share_of_time),
            row.right.to_string(),
        ]);
    }
    anstream::println!("{table}");
}
