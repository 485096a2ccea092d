#!/usr/bin/env python3
"""Prints the table of tests/rope/frequencies.txt: inverse frequencies by Hugging Face transformers' own functions.

They compute in float32; here every float32 of theirs is made a float64, so that the formulas can be compared to the last
digits. Needs torch and transformers (5.24 was used).
"""

from types import SimpleNamespace

import torch
import transformers.modeling_rope_utils as rope

torch.float = torch.float32 = torch.float64
torch.Tensor.float = torch.Tensor.double

LONG = [1.0, 1.5, 2.25, 7.5, 20.0, 40.5]
SHORT = [1.0, 1.0, 1.05, 1.1, 1.3, 2.0]
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 4096}

# name: head_dim, max_position_embeddings, seq_len, parameters
CASES = {
    "linear": (8, 2048, None, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "linear_partial": (20, 2048, None, {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.5, "partial_rotary_factor": 0.4}),
    "dynamic_short": (12, 2048, 100, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
    "dynamic_long": (12, 2048, 5000, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
    "yarn": (32, 16384, None, YARN),
    "yarn_ratio": (32, 32768, None, YARN | {"factor": None}),
    "yarn_exact_bounds": (32, 16384, None, YARN | {"truncate": False}),
    "yarn_betas": (32, 16384, None, YARN | {"beta_fast": 64, "beta_slow": 0.5}),
    "yarn_zero_betas": (32, 16384, None, YARN | {"beta_fast": 0, "beta_slow": 0}),
    "yarn_mscale": (16, 163840, None, YARN | {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.3}),
    "yarn_mscale_alone": (16, 163840, None, YARN | {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0}),
    "yarn_attention_factor": (16, 16384, None, YARN | {"attention_factor": 1.5}),
    "yarn_shrinking": (16, 16384, None, YARN | {"factor": 0.5}),
    # Both bounds are pair 0, and an upper bound below the lower one.
    "yarn_one_bound": (8, 64, None, YARN | {"original_max_position_embeddings": 2, "beta_fast": 8, "beta_slow": 0.32}),
    "yarn_crossed_bounds": (8, 64, None, YARN | {"original_max_position_embeddings": 2, "beta_fast": 8, "beta_slow": 4}),
    "longrope_short": (12, 131072, 4096, {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096}),
    "longrope_long": (12, 131072, 4097, {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096}),
    "longrope_factor": (12, 131072, None, {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096, "factor": 8.0}),
    "longrope_attention_factor": (12, 131072, 9000, {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096, "attention_factor": 1.25}),
    "longrope_not_longer": (12, 4096, 4097, {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096}),
    "llama3": (32, 131072, None, {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    "llama3_small": (24, 131072, None, {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 32.0, "low_freq_factor": 2.0, "high_freq_factor": 9.0, "original_max_position_embeddings": 512}),
    "proportional": (16, 131072, None, {"rope_type": "proportional", "rope_theta": 1e6, "factor": 8.0, "partial_rotary_factor": 0.25}),
}

for name, (head_dim, length, seq_len, parameters) in CASES.items():
    parameters = dict(parameters)
    if parameters["rope_type"] == "longrope":
        parameters |= {"long_factor": LONG, "short_factor": SHORT}
    config = SimpleNamespace(
        rope_parameters=parameters,
        standardize_rope_params=lambda: None,
        max_position_embeddings=length,
        head_dim=head_dim,
        hidden_size=head_dim,
        num_attention_heads=1,
    )
    compute = rope.ROPE_INIT_FUNCTIONS[parameters["rope_type"]]
    inv_freq, scaling = compute(config, torch.device("cpu"), seq_len=seq_len)
    print(name, repr(float(scaling)), *(repr(float(value)) for value in inv_freq))
