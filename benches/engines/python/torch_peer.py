"""PyTorch's scaled_dot_product_attention on the CPU."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from case import Skip, answer


def prepare(case, q, k, v):
    if case.causal and case.seqlen_q != case.seqlen_k:
        raise Skip("is_causal is aligned otherwise")
    inputs = [torch.from_numpy(x) for x in (q, k, v)]
    options = {"is_causal": case.causal} | ({"enable_gqa": True} if case.heads != case.kv_heads else {})
    result = {}

    def run():
        with torch.inference_mode():
            result["out"] = scaled_dot_product_attention(*inputs, **options)

    return {"adapter": f"CPU, {torch.get_num_threads()} threads"}, run, lambda: result["out"].numpy()


answer("torch", "torch", prepare)
