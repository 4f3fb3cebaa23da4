"""The training that a published comparison gave to all its rows alike.

For a method that was published without a training of its own, or that is known as such a row.
"""

from dataclasses import replace

from harness.method import Recipe

COMPARISON = Recipe(
    sequence_length=16384,
    steps=954,
    batch_tokens=128 * 16384,
    learning_rate=2e-5,
    schedule="cosine",
    warmup=0.03,
    data="2B tokens of RedPajama-Book",
    sources={
        "sequence_length": "CLEX's table 1, https://arxiv.org/abs/2310.16450: rows trained at 16k",
        "steps": "the 2B tokens read once; CLEX's scripts leave max_steps open",
        "batch_tokens": "CLEX's train_lm.sh: 512 sequences of 4,096, as many tokens at 16k",
        "learning_rate": "CLEX's train_lm.sh",
        "schedule": "CLEX's train_lm.sh: lr_scheduler_type",
        "warmup": "CLEX's train_lm.sh: warmup_ratio",
        "weight_decay": "CLEX's train_lm.sh",
        "betas": "the default of transformers' Trainer, which the script leaves",
        "clip": "the default of transformers' Trainer, which the script leaves",
        "trains": "all weights, as CLEX's train_lm.py",
        "data": "CLEX's README: the same corpus for every row that was trained",
        "seed": "the default of transformers' Trainer, which the script leaves",
    },
    disagreements=(
        "CLEX's repository has no code for the rows it compares itself with: these are the numbers "
        "of its own training, at the length the row names.",
        "The script asks for a cosine, but its DeepSpeed files hold a WarmupLR, which Trainer then "
        "follows: the rate warms up and stays.",
    ),
)
"""CLEX's, of its table 1."""

COMPARISON_4K = replace(
    COMPARISON,
    sequence_length=4096,
    batch_tokens=512 * 4096,
    sources={
        **COMPARISON.sources,
        "sequence_length": "CLEX's table 1: rows trained at 4k",
        "batch_tokens": "CLEX's train_lm.sh: 8 devices x 16 sequences x 4 accumulated",
    },
)
"""The same at the length of its scripts."""

LCEG = Recipe(
    sequence_length=32768,
    steps=120,
    batch_tokens=256 * 32768,
    learning_rate=2e-5,
    schedule="linear",
    warmup=20,
    data="SlimPajama, 1B tokens, each source down-sampled",
    sources={
        "sequence_length": "LCEG, https://arxiv.org/abs/2409.12181: rows trained at 32k",
        "steps": "LCEG: 30,774 sequences read once, 256 an update",
        "batch_tokens": "LCEG: 8 devices x 1 sequence x 32 accumulated",
        "learning_rate": "LCEG's scripts",
        "schedule": "LCEG's DeepSpeed file: WarmupDecayLR",
        "warmup": "LCEG's scripts",
        "weight_decay": "LCEG's scripts",
        "betas": "the default of transformers' Trainer (not re-checked)",
        "clip": "the default of transformers' Trainer (not re-checked)",
        "trains": "LCEG: all weights",
        "data": "LCEG",
        "seed": "the default of transformers' Trainer (not re-checked)",
    },
    disagreements=(
        "LCEG's command line says constant_with_warmup; its DeepSpeed file decays linearly, and is "
        "what Trainer follows.",
    ),
)
"""Lu et al. 2024's, a controlled comparison."""
