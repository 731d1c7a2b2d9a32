"""What models need, whichever task runs them.

| file             | what it is                                                             |
|------------------|------------------------------------------------------------------------|
| `installed.py`   | whether the packages that run models are installed                     |
| `question.py`    | a question about a picture, its answer, and the error of a model       |
| `checkpoints.py` | what a checkpoint is before it is loaded: architecture, size, place    |
| `loading.py`     | loading a checkpoint: device, number type, why it cannot be loaded     |
| `towers.py`      | vectors of pictures and texts: CLIP, SigLIP, vision encoders           |
| `vlm.py`         | a vision-language model: answers about pictures                        |
| `detector.py`    | an object detector: boxes in pictures                                  |
| `shared.py`      | one instance per model and process, asked by many tasks                |
| `decoding.py`    | one answer on the CPU, token by token, as `generate` finds it          |
| `growing.py`     | answers while they grow: shown in part, ended at a stop text           |
| `progress.py`    | progress bars of the model libraries, passed on to the run's status    |
"""
