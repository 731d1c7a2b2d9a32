"""WHO DOES IT: the tasks that ship with flowrun, one file a family.

This module imports none of them: `import flowrun.tasks` loads no torch, no transformers and no av.
"""

BUILT_IN = {
    "BoolSink": "flowrun.tasks.basic.BoolSink",
    "BoolSource": "flowrun.tasks.basic.BoolSource",
    "BroadcastChat": "flowrun.tasks.broadcast.BroadcastChat",
    "BroadcastImage": "flowrun.tasks.broadcast.BroadcastImage",
    "Counter": "flowrun.tasks.basic.Counter",
    "Detect": "flowrun.tasks.detect.Detect",
    "Inference": "flowrun.tasks.inference.Inference",
    "ParseDetections": "flowrun.tasks.parse_detections.ParseDetections",
    "PassBool": "flowrun.tasks.basic.PassBool",
    "Print": "flowrun.tasks.basic.Print",
    "RenderBoxes": "flowrun.tasks.render_boxes.RenderBoxes",
    "Square": "flowrun.tasks.basic.Square",
    "VideoCapture": "flowrun.tasks.video.capture.VideoCapture",
}
"""Short name in a graph file -> dotted path of the class."""
