//! Classes of problems, and one problem of each that is measured for all of them.

use anyhow::bail;
use wgpu_attention::{
    AttentionDescriptor, AttentionShape, CausalAlignment, DType, DTypes, Problem, QueryRows, TuningClass,
};

/// A class with its example.
#[derive(Clone, Debug)]
pub struct Example {
    pub class: TuningClass,
    pub shape: AttentionShape,
}

/// Head sizes that have a class of their own. Those measured unless somebody asks: 64 and 128, which most models have.
const HEAD_DIMS: [u32; 6] = [32, 64, 96, 128, 192, 256];
const USUAL_HEAD_DIMS: [u32; 2] = [64, 128];

impl Example {
    /// Those asked for by name, or the usual ones, the most usual first.
    pub fn select(names: &[String]) -> anyhow::Result<Vec<Example>> {
        if names.is_empty() {
            return Ok(Self::all(&[DType::F32, DType::F16], &USUAL_HEAD_DIMS));
        }
        let all = Self::all(&DType::ALL, &HEAD_DIMS);
        let mut selected: Vec<Example> = Vec::new();
        for name in names {
            match all.iter().find(|example| example.class.to_string() == *name) {
                None => bail!(
                    "no class {name:?}; a name is few, some or many, a head size of {HEAD_DIMS:?}, causal or not, and f32, f16 or \
                     bf16: few-128-f16, many-64-causal-f32"
                ),
                Some(example) if selected.iter().any(|there| there.class == example.class) => {}
                Some(example) => selected.push(example.clone()),
            }
        }
        Ok(selected)
    }

    fn all(dtypes: &[DType], head_dims: &[u32]) -> Vec<Example> {
        let mut all = Vec::new();
        for &dtype in dtypes {
            for &head_dim in head_dims {
                for causal in [false, true] {
                    for query_rows in [QueryRows::Many, QueryRows::Few, QueryRows::Some] {
                        let class = TuningClass {
                            query_rows,
                            head_dim,
                            causal,
                            dtype,
                        };
                        all.push(Example {
                            class,
                            shape: shape(&class),
                        });
                    }
                }
            }
        }
        all
    }

    /// The request.
    pub fn descriptor(&self) -> AttentionDescriptor<'static> {
        let dtype = self.class.dtype;
        AttentionDescriptor {
            shape: self.shape,
            causal: self.class.causal.then_some(CausalAlignment::LowerRight),
            dtypes: DTypes {
                query: dtype,
                key: dtype,
                value: dtype,
                out: dtype,
                ..Default::default()
            },
            ..Default::default()
        }
    }

    /// The same on numbers that are stored in `f32`.
    pub fn widened(&self) -> anyhow::Result<Problem> {
        Ok(Problem::new(&AttentionDescriptor {
            dtypes: DTypes::default(),
            ..self.descriptor()
        })?)
    }

    /// The sizes in a few words.
    pub fn sizes(&self) -> String {
        let shape = self.shape;
        let heads = match shape.kv_heads == shape.heads {
            true => shape.heads.to_string(),
            false => format!("{}/{}", shape.heads, shape.kv_heads),
        };
        format!(
            "{}x{heads}x{}x{}x{}",
            shape.batch, shape.seqlen_q, shape.seqlen_k, shape.head_dim
        )
    }
}

/// Sizes that models have, and that a software driver takes a moment for.
fn shape(class: &TuningClass) -> AttentionShape {
    match class.query_rows {
        QueryRows::Few => AttentionShape {
            kv_heads: 8,
            ..AttentionShape::new(1, 32, 1, 4096, class.head_dim)
        },
        QueryRows::Some => AttentionShape::new(1, 12, 128, 128, class.head_dim),
        QueryRows::Many => AttentionShape::new(1, 8, 1024, 1024, class.head_dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_example_is_of_its_class() {
        let all = Example::all(&DType::ALL, &HEAD_DIMS);
        assert_eq!(all.len(), 3 * 6 * 2 * 3);
        for example in &all {
            let problem = Problem::new(&example.descriptor()).unwrap();
            assert_eq!(TuningClass::of(&problem), example.class);
            let name = example.class.to_string();
            let found = Example::select(&[name.clone(), name]).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].class, example.class);
        }
        assert_eq!(Example::select(&[]).unwrap().len(), 24);
        assert!(Example::select(&["many-65-f32".into()]).is_err());
    }
}
