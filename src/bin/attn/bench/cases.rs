//! The cases, which are data: `benches/cases.csv`, or a file of the same columns.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Problem};

/// The set that is measured beside other engines: the same sizes as some of the other sets.
pub const PEERS: &str = "peers";
const CASES: &str = include_str!("../../../../benches/cases.csv");

/// One line of the file.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub name: String,
    pub set: String,
    #[serde(flatten)]
    pub sizes: Sizes,
}

/// The sizes of a case.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize)]
pub struct Sizes {
    pub batch: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub seqlen_q: u32,
    pub seqlen_k: u32,
    pub head_dim: u32,
    pub head_dim_v: u32,
    pub causal: bool,
}

impl Case {
    /// The built-in cases, or those of a file.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Vec<Case>> {
        let (text, name) = match file {
            None => (CASES.to_owned(), "the built-in cases".to_owned()),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
                (text, name)
            }
        };
        csv::Reader::from_reader(text.as_bytes())
            .deserialize()
            .collect::<Result<_, _>>()
            .with_context(|| format!("{name}: expected the columns of benches/cases.csv"))
    }

    /// The case as a line of the file: what a peer's process is given.
    pub fn line(&self) -> String {
        let Sizes {
            batch,
            heads,
            kv_heads,
            seqlen_q,
            seqlen_k,
            head_dim,
            head_dim_v,
            causal,
        } = self.sizes;
        let sizes = [batch, heads, kv_heads, seqlen_q, seqlen_k, head_dim, head_dim_v];
        let sizes = sizes.map(|size| size.to_string()).join(",");
        format!("{},{},{sizes},{causal}", self.name, self.set)
    }

    /// The request, without a choice of how to compute it.
    pub fn descriptor(&self) -> AttentionDescriptor<'_> {
        let Sizes {
            batch,
            heads,
            kv_heads,
            seqlen_q,
            seqlen_k,
            head_dim,
            head_dim_v,
            causal,
        } = self.sizes;
        AttentionDescriptor {
            label: Some(&self.name),
            shape: AttentionShape {
                batch,
                heads,
                kv_heads,
                seqlen_q,
                seqlen_k,
                head_dim,
                head_dim_v,
            },
            causal: causal.then_some(CausalAlignment::LowerRight),
            ..Default::default()
        }
    }
}

impl Sizes {
    /// The sizes in a few words.
    pub fn describe(&self) -> String {
        let heads = if self.heads == self.kv_heads {
            self.heads.to_string()
        } else {
            format!("{}/{}", self.heads, self.kv_heads)
        };
        let dim = if self.head_dim == self.head_dim_v {
            self.head_dim.to_string()
        } else {
            format!("{}/{}", self.head_dim, self.head_dim_v)
        };
        let causal = if self.causal { " causal" } else { "" };
        format!(
            "{}x{heads}x{}x{}x{dim}{causal}",
            self.batch, self.seqlen_q, self.seqlen_k
        )
    }
}

/// Multiply-adds counted as two, open positions only, the softmax not counted.
pub fn flops(problem: &Problem) -> f64 {
    let shape = problem.shape();
    let keys = i64::from(shape.seqlen_k);
    let open: f64 = match problem.causal_offset() {
        None => f64::from(shape.seqlen_q) * keys as f64,
        Some(offset) => (0..i64::from(shape.seqlen_q))
            .map(|row| (row + offset + 1).clamp(0, keys) as f64)
            .sum(),
    };
    2.0 * f64::from(shape.batch) * f64::from(shape.heads) * open * f64::from(shape.head_dim + shape.head_dim_v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_cases_are_problems() {
        let cases = Case::read(None).unwrap();
        assert!(cases.len() > 10);
        for case in &cases {
            let problem = Problem::new(&case.descriptor()).unwrap();
            assert!(flops(&problem) > 0.0);
        }
    }

    #[test]
    fn a_case_is_a_line_of_the_file() {
        let lines: Vec<_> = CASES.lines().skip(1).collect();
        let written: Vec<_> = Case::read(None).unwrap().iter().map(Case::line).collect();
        assert_eq!(written, lines);
    }

    #[test]
    fn closed_positions_are_not_counted() {
        let mut cases = Case::read(None).unwrap();
        let case = &mut cases[0];
        case.sizes.causal = true;
        // 8 heads, 1 + 2 + ... + 6 open positions, 2 x 64 channels, two operations.
        assert_eq!(flops(&Problem::new(&case.descriptor()).unwrap()), 8.0 * 21.0 * 256.0);
    }
}
