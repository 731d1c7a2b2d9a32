"""The vision-language model that ships with flowrun: small enough to run anywhere, at once.

`MODEL_DIR` is a checkpoint folder that transformers' `Auto*` classes load like any other; its README.md
is the model card. `training/` made it. Importing this package loads none of that.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).resolve().parent / "model"
"""Folder of the shipped checkpoint: config, weights, tokenizer and processor."""
