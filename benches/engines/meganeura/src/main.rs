//! Fused attention of the crate meganeura: WGSL through naga to SPIR-V, on blade-graphics (Vulkan).

use attn_common::{Answer, Case, measure, swap};
use meganeura::Graph;

fn main() {
    let case = Case::from_env();
    let variant = match (case.causal, case.seqlen_q == case.seqlen_k) {
        (true, _) => "causal_attention",
        (false, true) => "full_attention",
        // Its kernel for caches has one of 64 threads a channel and no check: right at a head_dim of 64 alone.
        (false, false) if case.head_dim != 64 => "cross_attention",
        (false, false) => "cached_attention",
    };
    let answer = Answer {
        engine: "meganeura",
        version: "0.3.0",
        variant,
        adapter: "",
        dtype: "f32",
    };
    if case.batch != 1 || (case.causal && case.seqlen_q != case.seqlen_k) {
        return answer.skip(&case, "no batch, and causal only of equal lengths");
    }
    let inputs = case.inputs();
    let expected = case.reference(&inputs, "f32");
    answer.guard(&case, || {
        let cached = variant == "cached_attention";
        let (heads, kv_heads, dim) = (case.heads as u32, case.kv_heads as u32, case.head_dim as u32);
        let mut graph = Graph::new();
        let q = graph.input("q", &[case.seqlen_q, case.heads * case.head_dim]);
        let mut kv = |name| {
            let shape = [case.seqlen_k, case.kv_heads * case.head_dim];
            if cached {
                graph.parameter(name, &shape)
            } else {
                graph.input(name, &shape)
            }
        };
        let (k, v) = (kv("k"), kv("v"));
        let out = match variant {
            "causal_attention" => graph.causal_attention(q, k, v, heads, kv_heads, dim),
            "full_attention" => graph.full_attention(q, k, v, heads, kv_heads, dim),
            "cross_attention" => graph.cross_attention(q, k, v, heads, kv_heads, dim),
            _ => {
                let last = graph.input_u32("last", &[1]);
                graph.cached_attention(q, k, v, last, heads, kv_heads, dim)
            }
        };
        graph.set_outputs(vec![out]);
        let mut session = meganeura::build(&graph, meganeura::SessionConfig::inference_from_env()).0;
        session.set_input("q", &swap(&inputs.q, case.q_shape()));
        for (name, values) in [("k", &inputs.k), ("v", &inputs.v)] {
            let values = swap(values, case.kv_shape());
            if cached {
                session.set_parameter(name, &values);
            } else {
                session.set_input(name, &values);
            }
        }
        if cached {
            session.set_input_u32("last", &[case.seqlen_k as u32 - 1]);
        }
        // The one session runs and is read from, so it is handed back and forth.
        let session = std::cell::RefCell::new(session);
        let run = || {
            let mut session = session.borrow_mut();
            session.step();
            session.wait();
        };
        let shape = [1, case.seqlen_q, case.heads, case.head_dim];
        measure(&expected, run, |()| {
            swap(&session.borrow_mut().read_output(shape.iter().product()), shape)
        })
    });
}
