"""How the model that ships was trained and measured. Not part of the installed package.

| file                       | what it is                                                   |
|----------------------------|--------------------------------------------------------------|
| `scenes.py`, `prompts.py`  | scenes of shapes, and questions about them with the answers  |
| `batches.py`               | training batches of both                                     |
| `network.py`, `train.py`   | building the model from nothing, and training it             |
| `evaluate.py`              | measuring it                                                 |
| `to_gguf.py`               | the checkpoint for llama-server                              |
| `demo_video.py`            | drawing the demo video                                       |
"""
