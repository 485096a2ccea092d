#!/usr/bin/env python3
"""Makes src/bin/attn/demo/minilm.safetensors from an oracle folder (tests/README.md says what that is).

    python3 tools/extract-demo.py ORACLE_FOLDER

Queries, keys and values of three layers of all-MiniLM-L6-v2 for "The cat sat on the mat": the projections of the stored
hidden states of the real tokens, [heads, tokens, head_dim]. Needs numpy and safetensors.
"""
import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

TOKENS = ["[CLS]", "the", "cat", "sat", "on", "the", "mat", "[SEP]"]
folder = pathlib.Path(sys.argv[1])
cases = {case["name"]: case for case in json.loads((folder / "manifest.json").read_text())["cases"]}
data = load_file(folder / "minilm.safetensors")
sentences = cases["minilm/end_to_end"]["attrs"]["tokens"]
sentence = next(i for i, tokens in enumerate(sentences) if tokens[: len(TOKENS)] == TOKENS)
out = {}
for layer in (0, 2, 4):
    case = cases[f"minilm/layer{layer}"]
    get = lambda role: data[case["inputs"][role]].astype(np.float64)
    heads, head_dim = case["attrs"]["num_heads"], case["attrs"]["head_dim"]
    open_keys = data[case["inputs"]["attend"]]
    assert open_keys[sentence].sum() == len(TOKENS), open_keys.sum(axis=1)
    hidden = get("hidden")[sentence, : len(TOKENS)]
    for name, role in (("query", "q"), ("key", "k"), ("value", "v")):
        projected = hidden @ get(f"{role}.weight").T + get(f"{role}.bias")
        heads_first = projected.reshape(len(TOKENS), heads, head_dim).transpose(1, 0, 2)
        out[f"layer{layer}.{name}"] = np.ascontiguousarray(heads_first, dtype=np.float32)
    q, k = out[f"layer{layer}.query"].astype(np.float64), out[f"layer{layer}.key"].astype(np.float64)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(head_dim)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = data[case["outputs"]["probs"]][sentence, :, : len(TOKENS), : len(TOKENS)]
    assert np.abs(weights - expected).max() < 1e-5, np.abs(weights - expected).max()
target = pathlib.Path(__file__).parent.parent / "src/bin/attn/demo/minilm.safetensors"
save_file(out, target, metadata={
    "tokens": " ".join(TOKENS),
    "sentence": "The cat sat on the mat",
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "licence": "Apache-2.0",
})
print(f"{target}: {target.stat().st_size} bytes")
