"""What each key of a task's config is for: the text below it in the source of its class."""

from __future__ import annotations

import ast
import inspect
import textwrap

from pydantic import BaseModel

__all__ = ["config_sentences"]


def config_sentences(model: type[BaseModel]) -> dict[str, str]:
    """Key -> what it is for, of the keys of `model` that say it: in `Field(description=...)`, or in
    a text on the line after the key.

    Sources are read here and not by pydantic (`use_attribute_docstrings`), which would do it when a
    class is made: importing the built-in tasks, as every run does, would take 0.1 s longer.
    """
    below: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            below |= _texts_below(base)
    sentences = {}
    for name, info in model.model_fields.items():
        sentence = info.description or below.get(name)
        if sentence:
            key = info.validation_alias if isinstance(info.validation_alias, str) else name
            sentences[key] = " ".join(sentence.split())
    return sentences


def _texts_below(model: type[BaseModel]) -> dict[str, str]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):  # a class that was not read from a file
        return {}
    [declared] = ast.parse(textwrap.dedent(source)).body
    assert isinstance(declared, ast.ClassDef)
    texts = {}
    for item, after in zip(declared.body, declared.body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    texts[item.target.id] = text
    return texts
