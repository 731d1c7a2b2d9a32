"""The vision-language model that ships with flowrun: small enough to run anywhere, at once.

`MODEL_DIR` is a checkpoint folder that transformers' `Auto*` classes load like any other; its
README.md is the model card. The modules beside it draw the scenes it was trained on (`scenes`),
ask about them (`prompts`), build and train it (`network`, `train`), measure it (`evaluate`) and
draw the demo video (`demo_video`). Importing this package loads none of them.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).resolve().parent / "model"
"""Folder of the shipped checkpoint: config, weights, tokenizer and processor."""
