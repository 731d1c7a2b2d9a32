"""What one can ask the embedded model, and the one right answer to it.

Kinds of prompt (each also works without its question mark):

| kind    | prompt                                     | answer                                 |
|---------|--------------------------------------------|----------------------------------------|
| caption | `cap en`, `caption en`, `describe en`      | `a red circle on the left and a ...`   |
| color   | `answer en what color is the circle?`      | `red`                                  |
| shape   | `answer en what shape is red?`             | `circle`                               |
| where   | `answer en what is on the left?`           | `a red circle`, or `nothing`           |
| count   | `answer en how many shapes are there?`     | `0` ... `3`                            |
| exists  | `answer en is there a red circle?`         | `yes`, `no`                            |
| detect  | `detect red circle`                        | a box and its label for each, or `none`|

A box is PaliGemma's: `<locYYYY><locXXXX><locYYYY><locXXXX> label` - top, left, bottom, right on a
grid of 1024 steps across the frame - and several are joined by ` ; `. The vocabulary holds 64
of the 1024 location tokens, the middles of 64 equal bins: `<loc0008>`, `<loc0024>`, ...
"""

from collections.abc import Callable

import numpy as np

from flowrun.tasks.embedded.training.scenes import (
    COLORS,
    SHAPES,
    Scene,
    SceneObject,
    box,
    caption,
    with_article,
)

LOC_BINS = 64
LOC_STEP = 1024 // LOC_BINS
CAPTION_PROMPT = "cap en"
PLACES = ("on the left", "on the right", "in the middle", "at the top", "at the bottom")

Question = tuple[str, str]
"""A prompt and its one right answer."""


def loc_token(fraction: float) -> str:
    """Return the location token of the bin that holds `fraction` (0-1 of the frame)."""
    index = min(max(int(fraction * LOC_BINS), 0), LOC_BINS - 1)
    return f"<loc{index * LOC_STEP + LOC_STEP // 2:04d}>"


def loc_tokens() -> list[str]:
    """Return all location tokens of the vocabulary, in order."""
    return [loc_token((index + 0.5) / LOC_BINS) for index in range(LOC_BINS)]


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question:
    """Return a question of `kind` about `scene`, drawn with `rng`, and its answer.

    Where `scene` admits no question of that kind (a colour, where no shape is the only one of its
    kind), a question of presence is asked instead. Raises KeyError for an unknown kind.
    """
    return _ASKERS[kind](scene, rng) or _exists(scene, rng)


def detection(scene: Scene, items: list[SceneObject], label: str | None) -> str:
    """Return the answer that names `items` with their boxes; `label` None: colour and shape."""
    if not items:
        return "none"
    boxes = ["".join(loc_token(edge) for edge in box(scene, item)) for item in items]
    names = [label or item.name for item in items]
    return " ; ".join(f"{where} {name}" for where, name in zip(boxes, names, strict=True))


def plural(name: str) -> str:
    """Return the plural of a shape's name."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def _caption(scene: Scene, rng: np.random.Generator) -> Question:
    prompt = rng.choice(["cap en", "caption en", "describe en"], p=[0.8, 0.1, 0.1])
    return str(prompt), caption(scene)


def _color(scene: Scene, rng: np.random.Generator) -> Question | None:
    unique = [o for o in scene.objects if sum(p.shape == o.shape for p in scene.objects) == 1]
    if not unique:
        return None
    item = unique[int(rng.integers(len(unique)))]
    spelling = "colour" if rng.random() < 0.25 else "color"
    return _answer_prompt(f"what {spelling} is the {item.shape}", rng), item.color


def _shape(scene: Scene, rng: np.random.Generator) -> Question | None:
    unique = [o for o in scene.objects if sum(p.color == o.color for p in scene.objects) == 1]
    if not unique:
        return None
    item = unique[int(rng.integers(len(unique)))]
    return _answer_prompt(f"what shape is {item.color}", rng), item.shape


def _where(scene: Scene, rng: np.random.Generator) -> Question:
    # A place that no object is said to be at, while it might be near one, is not asked about.
    places = [item.place for item in scene.objects]
    if not places:
        return _answer_prompt(f"what is {PLACES[int(rng.integers(5))]}", rng), "nothing"
    index = int(rng.integers(len(places)))
    return _answer_prompt(f"what is {places[index]}", rng), with_article(scene.objects[index].name)


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    pick = rng.random()
    if pick < 0.4 or not scene.objects:
        return _answer_prompt("how many shapes are there", rng), str(len(scene.objects))
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    if pick < 0.7:
        shape = item.shape if rng.random() < 0.75 else SHAPES[int(rng.integers(len(SHAPES)))]
        count = sum(other.shape == shape for other in scene.objects)
        return _answer_prompt(f"how many {plural(shape)} are there", rng), str(count)
    color = item.color if rng.random() < 0.75 else _any_color(rng)
    count = sum(other.color == color for other in scene.objects)
    return _answer_prompt(f"how many {color} shapes are there", rng), str(count)


def _exists(scene: Scene, rng: np.random.Generator) -> Question:
    name = _present_name(scene, rng) if scene.objects and rng.random() < 0.5 else None
    if name is None:
        name = _near_miss(scene, rng)
    answer = "yes" if _named(scene, name) else "no"
    return _answer_prompt(f"is there {with_article(name)}", rng), answer


def _detect(scene: Scene, rng: np.random.Generator) -> Question:
    if rng.random() < 0.2:
        return "detect shapes", detection(scene, list(scene.objects), None)
    present = scene.objects and rng.random() < 0.8
    name = _present_name(scene, rng) if present else _near_miss(scene, rng)
    return f"detect {name}", detection(scene, _named(scene, name), name)


def _named(scene: Scene, name: str) -> list[SceneObject]:
    return [item for item in scene.objects if name in (item.name, item.shape)]


def _present_name(scene: Scene, rng: np.random.Generator) -> str:
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    return item.shape if rng.random() < 0.4 else item.name


def _near_miss(scene: Scene, rng: np.random.Generator) -> str:
    """Return a name that shares its colour or shape with an object where there is one."""
    color, shape = _any_color(rng), SHAPES[int(rng.integers(len(SHAPES)))]
    if rng.random() < 0.3:
        return shape
    if scene.objects and rng.random() < 0.7:
        item = scene.objects[int(rng.integers(len(scene.objects)))]
        color, shape = (item.color, shape) if rng.random() < 0.5 else (color, item.shape)
    return f"{color} {shape}"


def _any_color(rng: np.random.Generator) -> str:
    return tuple(COLORS)[int(rng.integers(len(COLORS)))]


def _answer_prompt(question: str, rng: np.random.Generator) -> str:
    return f"answer en {question}" + ("?" if rng.random() < 0.75 else "")


_ASKERS: dict[str, Callable[[Scene, np.random.Generator], Question | None]] = {
    "caption": _caption,
    "color": _color,
    "shape": _shape,
    "where": _where,
    "count": _count,
    "exists": _exists,
    "detect": _detect,
}
KINDS = tuple(_ASKERS)
