"""Draw the demo video: `python -m flowrun.tasks.embedded.training.demo_video OUT.mp4`.

The video shows held-out scenes for two seconds each, with a gentle motion that changes no truth:
640x480, 10 frames a second, H.264 without B-frames, as cameras send it: Foxglove and Rerun show a log
of such packets as it is. Next to it goes `OUT.json`, the truth by time:
`{"scenes": [{"start_s", "end_s", "caption", "objects": [{"color", "shape", "place", "box"}]}]}`
with `box` as [top, left, bottom, right] in fractions of the frame, where the object rests.
`OUT.jpg` is a still of the third scene, its objects at rest.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
from PIL import Image

from flowrun.tasks.embedded.training.scenes import (
    HELD_OUT_SEEDS,
    MAX_MOTION,
    Frame,
    Scene,
    box,
    caption,
    draw,
    make_scene,
    moved,
)

WIDTH, HEIGHT = 640, 480
FPS = 10
STILL = 2
SCENE_S = 2
FIRST_SEED = 917_000  # all shapes, colours and places occur from here
# How many objects the scenes show, in turn.
OBJECT_COUNTS = (1, 2, 3, 2, 0, 3, 1, 2, 3, 2, 1)
# Grain costs bytes and is gone once a frame is 64 pixels wide.
_MOST_NOISE = 2.5
_QUALITY = "27"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m flowrun.tasks.embedded.training.demo_video")
    parser.add_argument("out", type=Path, help="the .mp4 file; .json and .jpg go beside it")
    out = parser.parse_args(arguments).out
    scenes = pick_scenes()
    write_video(out, scenes)
    out.with_suffix(".json").write_text(json.dumps(truth(scenes), indent=1) + "\n")
    write_still(out.with_suffix(".jpg"), scenes)
    print(f"{out}: {len(scenes)} scenes, {out.stat().st_size} bytes")


def pick_scenes() -> list[Scene]:
    """Return the video's scenes: the first held-out ones with the wanted numbers of objects."""
    seed = FIRST_SEED
    scenes: list[Scene] = []
    for count in OBJECT_COUNTS:
        while len((scene := make_scene(seed, canvas=(WIDTH, HEIGHT))).objects) != count:
            seed += 1
        seed += 1
        scenes.append(replace(scene, noise=min(scene.noise, _MOST_NOISE)))
    assert seed in HELD_OUT_SEEDS
    return scenes


def frames(scenes: list[Scene]) -> Iterator[Frame]:
    """Yield the video's frames: RGB, uint8, 480 x 640 x 3."""
    for scene in scenes:
        for index in range(SCENE_S * FPS):
            yield draw(scene_at(scene, index), noise_seed=index)


def scene_at(scene: Scene, index: int) -> Scene:
    """Return `scene` as it stands in its frame `index`, its objects moved from where they rest."""
    phase = 2 * math.pi * index / (SCENE_S * FPS)
    shifts = [
        (MAX_MOTION * math.cos(phase + k), MAX_MOTION * math.sin(phase + k))
        for k in range(len(scene.objects))
    ]
    return moved(scene, shifts)


def write_video(path: Path, scenes: list[Scene]) -> None:
    """Write `scenes` to `path` as an MP4 file; one thread, so that it is the same on every run."""
    options = {"crf": _QUALITY, "preset": "slow", "threads": "1", "bf": "0"}
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = SCENE_S * FPS
        for pixels in frames(scenes):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def write_still(path: Path, scenes: list[Scene]) -> None:
    """Write a JPEG file of the scene `STILL` of the video, its objects at rest."""
    Image.fromarray(draw(scenes[STILL])).save(path, quality=85)


def truth(scenes: list[Scene]) -> dict[str, Any]:
    """Return what is true of the video, by time."""
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "fps": FPS,
        "scenes": [
            {
                "start_s": index * SCENE_S,
                "end_s": (index + 1) * SCENE_S,
                "seed": scene.seed,
                "caption": caption(scene),
                "objects": [
                    {
                        "color": item.color,
                        "shape": item.shape,
                        "place": item.place,
                        "box": [round(edge, 4) for edge in box(scene, item)],
                    }
                    for item in scene.objects
                ],
            }
            for index, scene in enumerate(scenes)
        ],
    }


if __name__ == "__main__":
    main()
