"""Questions about a scene in people's own words, and the one right answer to each.

`prompts.py` has the seven prompts in their fixed words; here the same things, and more, are asked as
people put them: in whole sentences, with a plural, with a please, about the biggest or about what is
not there. What a scene makes ambiguous (which of two alike is the biggest) is not asked.

| kinds                                          | answer                                            |
|------------------------------------------------|---------------------------------------------------|
| caption                                        | the caption                                       |
| count, count all, no such number               | `0` ... `3`                                       |
| exists ..., several, exactly, empty, has ...   | `yes`, `no`                                       |
| color ..., colors                              | `red`, `red and blue`, `there is no circle`       |
| shape ...                                      | `circle`, `circle and star`, `there is no red shape` |
| what ...                                       | `a red circle`, `nothing`                         |
| where                                          | `on the left`, `there is no red circle`           |
| detect ...                                     | boxes with labels, or `none`                      |
| no such thing                                  | `no`: a thing that is no coloured shape           |
| small talk, off topic                          | `I only know coloured shapes`                     |
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from flowrun.tasks.embedded.training.prompts import PLACES, Question, detection, plural
from flowrun.tasks.embedded.training.scenes import (
    COLORS,
    SHAPES,
    Scene,
    SceneObject,
    box,
    caption,
    join_words,
    with_article,
)
from flowrun.tasks.embedded.training.wordings import (
    PLACE_WORDINGS,
    REFUSAL,
    SIDES,
    SIZES,
    TRAINED,
    UNKNOWN_WORD,
    Wordings,
)

__all__ = ["FREE_KINDS", "ask_freely"]

Rng = np.random.Generator
Fields = dict[str, str]
T = TypeVar("T")
_CLEARLY_LARGER = 1.45  # of two boxes' areas


def ask_freely(
    scene: Scene, kind: str, rng: Rng, *, wordings: Wordings = TRAINED
) -> Question | None:
    """Return a question of `kind` about `scene` in one of the `wordings`, and its answer.

    None where the scene admits no such question. Raises KeyError for an unknown kind.
    """
    asked = _ASKERS[kind](scene, rng)
    if asked is None:
        return None
    fields, answer = asked
    noun, nouns = _pick(rng, wordings.nouns)
    fields = {"noun": noun, "nouns": nouns} | fields
    text = _filled(_pick(rng, wordings.kinds[kind]), fields, rng)
    if kind not in _BARE:
        if rng.random() < 0.2:
            text = f"{text} {_filled(_pick(rng, wordings.after), {}, rng)}"
        if rng.random() < 0.15:
            text = f"{_filled(_pick(rng, wordings.before), {}, rng)} {text}"
    if kind not in _COMMANDS and (kind != "caption" or text.startswith(("what", "which", "tell"))):
        text = _pick(rng, ("", "", "answer en ", "answer ")) + text
    return text + _pick(rng, ("", "", "?", "?", ".")), answer


def _pick(rng: Rng, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _filled(text: str, fields: Fields, rng: Rng) -> str:
    while "{xx}" in text:
        # A long word is several unknown ones to a tokenizer that spells what it does not know.
        count = int(rng.integers(2, 9)) if rng.random() < 0.15 else 1
        text = text.replace("{xx}", " ".join([UNKNOWN_WORD] * count), 1)
    return text.format(**fields) if fields else text


# -- what is asked about -------------------------------------------------------------------------------


def _name(scene: Scene, rng: Rng, *, thing: bool) -> tuple[str, str, list[SceneObject]]:
    """Return a singular name, its plural, and the objects that go by it; half of them are there.

    `thing`: whether a colour alone may be a name: `red shape`.
    """
    color, shape = _pick(rng, tuple(COLORS)), _pick(rng, SHAPES)
    if scene.objects and rng.random() < 0.75:
        item = _pick(rng, scene.objects)
        pick = rng.random()
        color = item.color if pick < 0.8 else color
        shape = item.shape if pick < 0.6 or pick > 0.8 else shape
    pick = rng.random()
    if pick < 0.35:
        return shape, plural(shape), [o for o in scene.objects if o.shape == shape]
    if pick < 0.6 and thing:
        noun, nouns = _pick(rng, (*TRAINED.nouns, ("one", "ones")))
        found = [o for o in scene.objects if o.color == color]
        return f"{color} {noun}", f"{color} {nouns}", found
    name = f"{color} {shape}"
    return name, plural(name), [o for o in scene.objects if o.name == name]


def _names(scene: Scene, rng: Rng) -> tuple[Fields, list[SceneObject]]:
    name, many, found = _name(scene, rng, thing=True)
    return {"one": with_article(name), "name": name, "many": many}, found


def _by_size(scene: Scene, size: str) -> SceneObject | None:
    """The biggest or smallest object, None where none clearly is."""

    def area(item: SceneObject) -> float:
        top, left, bottom, right = box(scene, item)
        return (bottom - top) * (right - left)

    order = sorted(scene.objects, key=area, reverse=size == "biggest")
    if len(order) < 2:
        return order[0] if order else None
    areas = sorted((area(order[0]), area(order[1])))
    return order[0] if areas[1] > _CLEARLY_LARGER * areas[0] else None


def _at_place(scene: Scene, rng: Rng) -> tuple[str, SceneObject | None] | None:
    """A place, and what is there; a place that an object is only near to is not asked about."""
    taken = {item.place: item for item in scene.objects}
    free: list[str] = []
    if len(taken) < 2:
        free = [place for place in PLACES if place not in taken]
    elif len(taken) == 2:
        free = ["in the middle"]
    if free and (not taken or rng.random() < 0.25):
        return _pick(rng, free), None
    if not taken:
        return None
    place = _pick(rng, tuple(taken))
    return place, taken[place]


def _said(place: str, rng: Rng) -> str:
    return _pick(rng, PLACE_WORDINGS[place])


def _joined(names: Sequence[str]) -> str:
    return join_words(list(dict.fromkeys(names)))


def _yes(is_so: bool) -> str:  # noqa: FBT001
    return "yes" if is_so else "no"


Asked = tuple[Fields, str] | None


def _count(scene: Scene, rng: Rng) -> Asked:
    if rng.random() < 0.35:
        noun = _pick(rng, TRAINED.nouns)[1]
        many = noun if rng.random() < 0.8 else f"{_pick(rng, ('coloured', 'colored'))} {noun}"
        return {"many": many}, str(len(scene.objects))
    fields, found = _names(scene, rng)
    return fields, str(len(found))


def _exists(scene: Scene, rng: Rng) -> Asked:
    if rng.random() < 0.12:
        noun, nouns = _pick(rng, TRAINED.nouns)
        fields = {"one": with_article(noun), "name": noun, "many": nouns}
        return fields, _yes(bool(scene.objects))
    fields, found = _names(scene, rng)
    return fields, _yes(bool(found))


def _exists_color(scene: Scene, rng: Rng) -> Asked:
    color = _color_of_scene(scene, rng)
    return {"color": color}, _yes(any(item.color == color for item in scene.objects))


def _exists_at(scene: Scene, rng: Rng) -> Asked:
    at = _at_place(scene, rng)
    if at is None:
        return None
    place, item = at
    fields, found = _names(scene, rng)
    if item is not None and rng.random() < 0.4:
        fields = {"one": with_article(item.name), "name": item.name}
        found = [item]
    return fields | {"place": _said(place, rng)}, _yes(item in found)


def _exactly(scene: Scene, rng: Rng) -> Asked:
    count = len(scene.objects) if rng.random() < 0.5 else int(rng.integers(4))
    if count < 2 or len(scene.objects) > count:  # "are there two" of three: yes and no
        return None
    number = _pick(rng, (str(count), ("two", "three")[count - 2]))
    return {"number": number}, _yes(len(scene.objects) == count)


def _has_color(scene: Scene, rng: Rng) -> Asked:
    item = _only(scene, rng, "shape")
    if item is None:
        return None
    color = item.color if rng.random() < 0.5 else _color_of_scene(scene, rng)
    if rng.random() < 0.08:
        return {"shape": item.shape, "color": UNKNOWN_WORD}, "no"
    return {"shape": item.shape, "color": color}, _yes(color == item.color)


def _has_shape(scene: Scene, rng: Rng) -> Asked:
    item = _only(scene, rng, "color")
    if item is None:
        return None
    shape = item.shape if rng.random() < 0.5 else _pick(rng, SHAPES)
    fields = {"color": item.color, "place": _said(item.place, rng), "shape": shape}
    return fields, _yes(shape == item.shape)


def _color(scene: Scene, rng: Rng) -> Asked:
    shape = _shape_of_scene(scene, rng)
    colors = [item.color for item in scene.objects if item.shape == shape]
    fields = {"shape": shape, "shapes": plural(shape)}
    return fields, _joined(colors) or f"there is no {shape}"


def _color_of_size(scene: Scene, rng: Rng) -> Asked:
    return _of_size(scene, rng, "color")


def _shape_of_size(scene: Scene, rng: Rng) -> Asked:
    return _of_size(scene, rng, "shape")


def _what_of_size(scene: Scene, rng: Rng) -> Asked:
    asked = _of_size(scene, rng, "name")
    if asked is None:
        return None
    fields, answer = asked
    return fields, with_article(answer) if answer != "nothing" else answer


def _of_size(scene: Scene, rng: Rng, what: str) -> Asked:
    size = _pick(rng, tuple(SIZES))
    fields = {"size": _pick(rng, SIZES[size])}
    if not scene.objects:
        return fields, "nothing"
    item = _by_size(scene, size)
    return None if item is None else (fields, getattr(item, what))


def _color_at(scene: Scene, rng: Rng) -> Asked:
    return _at(scene, rng, "color")


def _shape_at(scene: Scene, rng: Rng) -> Asked:
    return _at(scene, rng, "shape")


def _what_at(scene: Scene, rng: Rng) -> Asked:
    asked = _at(scene, rng, "name")
    if asked is None:
        return None
    fields, answer = asked
    return fields, with_article(answer) if answer != "nothing" else answer


def _at(scene: Scene, rng: Rng, what: str) -> Asked:
    at = _at_place(scene, rng)
    if at is None:
        return None
    place, item = at
    fields = {"place": _said(place, rng), "side": SIDES[place]}
    return fields, "nothing" if item is None else getattr(item, what)


def _shape(scene: Scene, rng: Rng) -> Asked:
    color = _color_of_scene(scene, rng)
    shapes = [item.shape for item in scene.objects if item.color == color]
    return {"color": color}, _joined(shapes) or f"there is no {color} shape"


def _where(scene: Scene, rng: Rng) -> Asked:
    name, many, found = _name(scene, rng, thing=False)
    fields = {"thing": name, "things": many, "one": with_article(name)}
    return fields, _joined([item.place for item in found]) or f"there is no {name}"


def _detect(scene: Scene, rng: Rng) -> Asked:
    fields, found = _names(scene, rng)
    name = fields["name"]
    label = name if name in SHAPES else None
    return fields, detection(scene, found, label)


def _unknown_fields(rng: Rng) -> Fields:
    shape, place = _pick(rng, SHAPES), _pick(rng, PLACES)
    return {
        "shape": shape,
        "shapes": plural(shape),
        "color": _pick(rng, tuple(COLORS)),
        "place": _said(place, rng),
        "size": _pick(rng, SIZES[_pick(rng, tuple(SIZES))]),
        "number": str(int(rng.integers(10))),
    }


def _color_of_scene(scene: Scene, rng: Rng) -> str:
    if scene.objects and rng.random() < 0.7:
        return _pick(rng, scene.objects).color
    return _pick(rng, tuple(COLORS))


def _shape_of_scene(scene: Scene, rng: Rng) -> str:
    if scene.objects and rng.random() < 0.8:
        return _pick(rng, scene.objects).shape
    return _pick(rng, SHAPES)


def _only(scene: Scene, rng: Rng, what: str) -> SceneObject | None:
    """An object that is the only one of its shape or colour."""
    values = [getattr(item, what) for item in scene.objects]
    only = [o for o, value in zip(scene.objects, values, strict=True) if values.count(value) == 1]
    return _pick(rng, only) if only else None


_ASKERS: dict[str, Callable[[Scene, Rng], Asked]] = {
    "caption": lambda scene, _rng: ({}, caption(scene)),
    "count": _count,
    "count all": lambda scene, _rng: ({}, str(len(scene.objects))),
    "exists": _exists,
    "exists any": lambda scene, _rng: ({}, _yes(bool(scene.objects))),
    "empty": lambda scene, _rng: ({}, _yes(not scene.objects)),
    "exists color": _exists_color,
    "exists at": _exists_at,
    "several": lambda scene, _rng: ({}, _yes(len(scene.objects) > 1)),
    "exactly": _exactly,
    "has color": _has_color,
    "has shape": _has_shape,
    "color": _color,
    "color of size": _color_of_size,
    "color at": _color_at,
    "colors": lambda scene, _rng: (
        {},
        _joined([item.color for item in scene.objects]) or "nothing",
    ),
    "shape": _shape,
    "shape of size": _shape_of_size,
    "shape at": _shape_at,
    "what at": _what_at,
    "what of size": _what_of_size,
    "where": _where,
    "detect": _detect,
    "detect shapes": lambda scene, _rng: ({}, detection(scene, list(scene.objects), None)),
    "no such thing": lambda _scene, rng: (_unknown_fields(rng), "no"),
    "no such number": lambda _scene, rng: (_unknown_fields(rng), "0"),
    "detect no such thing": lambda _scene, rng: (_unknown_fields(rng), "none"),
    "small talk": lambda _scene, _rng: ({}, REFUSAL),
    "off topic": lambda _scene, rng: (_unknown_fields(rng), REFUSAL),
}
FREE_KINDS = tuple(_ASKERS)
_COMMANDS = frozenset({"detect", "detect shapes", "detect no such thing"})
# To these nothing is added: "what is this in the picture" would ask something else.
_BARE = frozenset({*_COMMANDS, "caption", "small talk", "off topic"})
