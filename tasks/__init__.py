"""WHO DOES IT: the tasks that ship with flowrun, one file per family.

| file or folder                            | what it is                                            |
|-------------------------------------------|-------------------------------------------------------|
| `video/`                                  | `VideoCapture`                                        |
| `inference.py`, `backends/`               | `Inference`, and what answers for it                  |
| `detect.py`, `parse_detections.py`        | boxes: from a detector, from a model's answer         |
| `alert.py`, `rules.py`, `conditions/`     | alerts, and the expressions that raise them           |
| `boxes.py`                                | which of boxes that overlap are kept                  |
| `read_text.py`                            | what is written in pictures                           |
| `track.py`                                | objects followed from picture to picture              |
| `zones.py`                                | who is in zones, and who crosses lines                |
| `faces.py`, `blur.py`                     | faces; what is found, made unrecognizable             |
| `drawing.py`, `render_boxes.py`           | boxes, tracks, zones and lines on pictures            |
| `broadcast.py`                            | pictures and answers for clients                      |
| `shaping/`                                | `Crop`, `Resize`, `Mosaic`, `Throttle`, `Join`, ...   |
| `sinks/`                                  | films, files, receivers, viewers, a window            |
| `addresses.py`                            | hosts and URLs in configs                             |
| `basic.py`                                | `Counter`, `Square`, `Print`, ...                     |
| `labels.py`, `named_inputs.py`            | texts as pixels; inputs that a config names           |
| `thinning.py`                             | which messages are kept of more than are wanted       |
| `models/`, `embedded/`                    | what models need; the model that ships                |
| `evaluation/`                             | models and prompts compared on recorded frames        |
| `rehearsal.py`                            | alerts, tried on recorded runs                        |
| `ask.py`, `commands/`                     | `flowrun ask`, `models`, `alerts`, `doctor`           |

The package's metadata offers them to graphs as entry points of the group `flowrun.tasks`, as any other
package may. This module imports none of them: `import flowrun.tasks` loads no torch, no transformers and
no av.
"""
