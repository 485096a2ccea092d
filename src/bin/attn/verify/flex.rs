//! `flex` and `onnx.FlexAttention` cases: attention with functions of the score, given as expressions.

use std::collections::BTreeMap;

use anyhow::Context as _;
use wgpu_attention::reference::ReferenceMods;
use wgpu_attention::{
    AttentionDescriptor, AttentionShape, BlockIndices, BlockMaskDescriptor, BlockMaskShape, DTypes, HostInputs, Mods,
    Outputs, block_indices,
};

use super::expression::{Captured, Expression, Hook, Scope, Value, all_captured};
use super::oracle::{Array, CaseTensors, Numbers};
use super::{Computed, Target, sdpa};

/// The roles of query, key and value, and those of the outputs.
struct Roles {
    inputs: [&'static str; 3],
    out: &'static str,
    lse: &'static str,
}

/// Runs a `flex` case; an error is an unreadable case, or the library's refusal.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    run_roles(
        tensors,
        target,
        &Roles {
            inputs: ["q", "k", "v"],
            out: "o",
            lse: "lse",
        },
    )
}

/// Runs an `onnx.FlexAttention` case.
pub fn run_onnx(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    run_roles(
        tensors,
        target,
        &Roles {
            inputs: ["Q", "K", "V"],
            out: "Y",
            lse: "lse",
        },
    )
}

fn run_roles(tensors: &CaseTensors<'_>, target: &Target, roles: &Roles) -> anyhow::Result<Computed> {
    let [q, k, v] = roles.inputs.map(|role| tensors.numbers(role));
    let [q, k, v] = [q?, k?, v?];
    let [batch, heads, seqlen_q, head_dim] = axes(&q, roles.inputs[0])?;
    let [_, kv_heads, seqlen_k, _] = axes(&k, roles.inputs[1])?;
    let [_, _, _, head_dim_v] = axes(&v, roles.inputs[2])?;
    let shape = AttentionShape {
        batch,
        heads,
        kv_heads,
        seqlen_q,
        seqlen_k,
        head_dim,
        head_dim_v,
    };
    let inputs = captured_inputs(tensors, roles)?;
    let parameters = parameters(tensors)?;
    let scope = Scope {
        inputs: &inputs,
        parameters: &parameters,
    };
    let expression = |hook: Hook| match tensors.case.text(hook.name())? {
        None => Ok(None),
        Some(text) => anyhow::Ok(Some(Expression::new(hook, text, &scope)?)),
    };
    let functions = Functions {
        score_mod: expression(Hook::Score)?,
        mask_mod: expression(Hook::Mask)?,
        prob_mod: expression(Hook::Probability)?,
    };
    functions.run(tensors, target, roles, shape, [&q, &k, &v])
}

/// The expressions of a case.
struct Functions<'a> {
    score_mod: Option<Expression<'a>>,
    mask_mod: Option<Expression<'a>>,
    prob_mod: Option<Expression<'a>>,
}

impl Functions<'_> {
    fn run(
        &self,
        tensors: &CaseTensors<'_>,
        target: &Target,
        roles: &Roles,
        shape: AttentionShape,
        [q, k, v]: [&Numbers; 3],
    ) -> anyhow::Result<Computed> {
        let case = tensors.case;
        let expressions: Vec<_> = [&self.score_mod, &self.mask_mod, &self.prob_mod]
            .into_iter()
            .flatten()
            .collect();
        let captured = all_captured(&expressions);
        let names: Vec<_> = captured.iter().map(|captured| captured.wgsl_name()).collect();
        let captures: Vec<_> = captured
            .iter()
            .zip(&names)
            .map(|(captured, name)| captured.capture(name))
            .collect();
        let bytes: Vec<_> = captured.iter().map(|captured| captured.bytes()).collect();
        let bytes: Vec<_> = bytes.iter().map(|bytes| &bytes[..]).collect();
        let texts = [&self.score_mod, &self.mask_mod, &self.prob_mod]
            .map(|expression| expression.as_ref().map(Expression::wgsl));
        let mods = Mods {
            score_mod: texts[0].as_deref(),
            mask_mod: texts[1].as_deref(),
            prob_mod: texts[2].as_deref(),
            captures: &captures,
        };
        let mut computed = Computed::new();
        let blocks = blocks(tensors, shape)?;
        let states = match (blocks, target) {
            (Some(blocks), Target::Gpu { engine, .. }) => {
                Some(engine.block_mask(&BlockMaskDescriptor::new(&shape, blocks, mods), &bytes)?)
            }
            (Some(blocks), Target::Reference) => self.states(shape, blocks),
            (None, _) => None,
        };
        if let (Some(blocks), Some(states)) = (blocks, &states) {
            insert_blocks(&mut computed, shape, blocks, states);
        }
        let descriptor = AttentionDescriptor {
            shape,
            dtypes: DTypes {
                query: q.host().dtype(),
                key: k.host().dtype(),
                value: v.host().dtype(),
                out: q.host().dtype(),
                ..Default::default()
            },
            mods,
            block_mask: blocks,
            outputs: Outputs {
                lse: true,
                ..Default::default()
            },
            algorithm: target.algorithm(),
            ..sdpa::rules(tensors)?
        };
        let inputs = HostInputs {
            captures: &bytes,
            block_mask: states.as_deref(),
            ..HostInputs::new(q.host(), k.host(), v.host())
        };
        let value = |expression: &Option<Expression<'_>>, value, at| match expression {
            Some(expression) => expression.value_function()(value, at),
            None => value,
        };
        let score_mod = |score: f64, at: [u32; 4]| value(&self.score_mod, score, at);
        let prob_mod = |prob: f64, at: [u32; 4]| value(&self.prob_mod, prob, at);
        let mask_mod = |at: [u32; 4]| {
            self.mask_mod
                .as_ref()
                .is_none_or(|expression| expression.mask_function()(at))
        };
        let reference_mods = ReferenceMods {
            score_mod: if mods.score_mod.is_some() {
                Some(&score_mod)
            } else {
                None
            },
            mask_mod: if mods.mask_mod.is_some() { Some(&mask_mod) } else { None },
            prob_mod: if mods.prob_mod.is_some() { Some(&prob_mod) } else { None },
        };
        let output = target.attention_with(&descriptor, &inputs, &reference_mods)?;
        let AttentionShape {
            batch,
            heads,
            seqlen_q,
            head_dim_v,
            ..
        } = shape;
        computed.insert(
            roles.out,
            Array {
                shape: vec![batch, heads, seqlen_q, head_dim_v],
                data: output.out,
            },
        );
        if let Some(lse) = output.lse.filter(|_| case.outputs.contains_key(roles.lse)) {
            computed.insert(
                roles.lse,
                Array {
                    shape: vec![batch, heads, seqlen_q],
                    data: lse,
                },
            );
        }
        Ok(computed)
    }

    /// A block mask by plain loops over its positions.
    fn states(&self, shape: AttentionShape, blocks: BlockMaskShape) -> Option<Vec<u32>> {
        let open = self.mask_mod.as_ref()?.mask_function();
        let [q_blocks, kv_blocks] = blocks.blocks(&shape);
        let mut states = Vec::new();
        for number in 0..blocks.batch * blocks.heads * q_blocks * kv_blocks {
            let (kv_block, rest) = (number % kv_blocks, number / kv_blocks);
            let (q_block, head_number) = (rest % q_blocks, rest / q_blocks);
            let (batch, head) = (head_number / blocks.heads, head_number % blocks.heads);
            let mut found = [false; 2];
            for at in 0..blocks.block_q * blocks.block_kv {
                let q_idx = q_block * blocks.block_q + at / blocks.block_kv;
                let kv_idx = kv_block * blocks.block_kv + at % blocks.block_kv;
                let inside = q_idx < shape.seqlen_q && kv_idx < shape.seqlen_k;
                found[usize::from(inside && open([batch, head, q_idx, kv_idx]))] = true;
            }
            states.push(match found {
                [true, false] => 0,
                [false, true] => 2,
                _ => 1,
            });
        }
        Some(states)
    }
}

/// The inputs besides query, key, value and gradients.
fn captured_inputs(tensors: &CaseTensors<'_>, roles: &Roles) -> anyhow::Result<Vec<Captured>> {
    let names = tensors.case.inputs.keys();
    let captured = names.filter(|role| !roles.inputs.contains(&role.as_str()) && *role != "d_o");
    captured
        .map(|role| Captured::read(role, &tensors.view(role)?))
        .collect()
}

fn parameters(tensors: &CaseTensors<'_>) -> anyhow::Result<BTreeMap<String, Value>> {
    let Some(parameters) = tensors.case.attrs.get("params").filter(|value| !value.is_null()) else {
        return Ok(BTreeMap::new());
    };
    let parameters = parameters.as_object().context("params is no object")?;
    let value = |(name, value): (&String, &serde_json::Value)| {
        let number =
            Value::from_json(value).with_context(|| format!("parameter {name} is {value}, no 32-bit number"))?;
        Ok((name.clone(), number))
    };
    parameters.iter().map(value).collect()
}

/// The block mask that a case wants, of as many sequences and heads as its expected lists have.
fn blocks(tensors: &CaseTensors<'_>, shape: AttentionShape) -> anyhow::Result<Option<BlockMaskShape>> {
    let case = tensors.case;
    if case.text("mask_mod")?.is_none() || !case.outputs.contains_key("block.kv_num_blocks") {
        return Ok(None);
    }
    let [block_q, block_kv] = match case.attrs.get("block_size").and_then(|size| size.as_array()) {
        Some(sizes) => {
            let size = |index: usize| sizes.get(index).and_then(|size| size.as_u64());
            let sizes = size(0).zip(size(1)).context("block_size has no two numbers")?;
            [u32::try_from(sizes.0)?, u32::try_from(sizes.1)?]
        }
        None => [case.size("block_size")?.context("no block_size")?; 2],
    };
    let [batch, heads, _] = tensors.expected("block.kv_num_blocks")?.axes("block.kv_num_blocks")?;
    let blocks = BlockMaskShape {
        batch,
        heads,
        block_q,
        block_kv,
    };
    anyhow::ensure!(
        block_q > 0 && block_kv > 0 && (batch == 1 || batch == shape.batch) && (heads == 1 || heads == shape.heads),
        "block lists of batch {batch} and heads {heads}"
    );
    Ok(Some(blocks))
}

fn insert_blocks(computed: &mut Computed, shape: AttentionShape, blocks: BlockMaskShape, states: &[u32]) {
    let [q_blocks, kv_blocks] = blocks.blocks(&shape);
    let BlockIndices {
        kv_num_blocks,
        kv_indices,
        full_kv_num_blocks,
        full_kv_indices,
    } = block_indices(states, kv_blocks);
    let rows = vec![blocks.batch, blocks.heads, q_blocks];
    let all = [&rows[..], &[kv_blocks]].concat();
    for (role, shape, list) in [
        ("block.kv_num_blocks", &rows, kv_num_blocks),
        ("block.kv_indices", &all, kv_indices),
        ("block.full_kv_num_blocks", &rows, full_kv_num_blocks),
        ("block.full_kv_indices", &all, full_kv_indices),
    ] {
        computed.insert(
            role,
            Array {
                shape: shape.clone(),
                data: list.into_iter().map(|number| number as f32).collect(),
            },
        );
    }
}

fn axes(numbers: &Numbers, role: &str) -> anyhow::Result<[u32; 4]> {
    <[u32; 4]>::try_from(&numbers.shape[..])
        .map_err(|_| anyhow::anyhow!("{role} has shape {:?}, expected 4 axes", numbers.shape))
}
