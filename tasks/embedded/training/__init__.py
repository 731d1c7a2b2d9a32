"""How the model that ships was trained and measured. Not part of the installed package.

| file                       | what it is                                                   |
|----------------------------|--------------------------------------------------------------|
| `scenes.py`                | scenes of shapes, with what is true of them                  |
| `backgrounds.py`           | textures for their backgrounds                               |
| `cameras.py`               | what cameras and encoders do to a picture                    |
| `prompts.py`               | the seven prompts in fixed words, with the answers           |
| `questions.py`             | the same questions, and more, in people's words              |
| `wordings.py`              | those words: of training, held out, off topic                |
| `batches.py`               | training batches of all these                                |
| `network.py`, `train.py`   | building the model from nothing, and training it             |
| `evaluate.py`              | measuring it                                                 |
| `to_gguf.py`               | the checkpoint for llama-server                              |
| `demo_video.py`            | drawing the demo video                                       |
"""
