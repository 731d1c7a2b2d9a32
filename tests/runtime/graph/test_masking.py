"""A key that is written in a graph file: masked in what is stored and shown, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.graph.bind import BoundGraph, bind
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.read import parse_graph

LONG = "sk-0123456789abcdef"


def bound(config: str, env: dict[str, str] | None = None) -> BoundGraph:
    text = f"tasks:\n  - id: ollama\n    type: support.login_tasks.Keyed\n    config:\n{config}\n"
    return bind(parse_graph(text, path=Path("g.yaml"), env=env or {}))


def stored(config: str, env: dict[str, str] | None = None) -> str:
    """What the log keeps of `config`; the rest of the graph is as it was, and binds again."""
    graph = bound(config, env)
    text = graph.spec.stored_text
    assert text is not None
    head = graph.spec.text[: graph.spec.text.index(config)]
    assert text.startswith(head)
    again = bind(parse_graph(text, path=Path("g.yaml"), env=env or {}))
    assert [task.id for task in again.tasks] == ["ollama"]
    assert masked_graph(again.spec) == masked_graph(graph.spec)
    return text.removeprefix(head).removesuffix("\n")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("key: abc", "key: '***'"),
        ("key: abc  # mine", "key: '***'  # mine"),
        ('key: "abc"', "key: '***'"),
        ("key: 'a''b'", "key: '***'"),
        ("key: >-\n          abc\n          def\n        user: me", "key: '***'\n        user: me"),
        ("key: !!str abc", "key: !!str '***'"),
        ("key: &k abc\n        user: *k", "key: &k '***'\n        user: *k"),
        ("{key: abc, user: me}", "{key: '***', user: me}"),
        ("PIN: '1234'", "PIN: '***'"),
        ("key: ''", "key: ''"),
        ("key:", "key:"),
        ("user: abc", "user: abc"),
    ],
)
def test_a_key_is_masked_however_it_is_written(written: str, kept: str) -> None:
    assert stored(f"      login:\n        {written}") == f"      login:\n        {kept}"


def test_keys_in_lists_and_mappings_are_masked() -> None:
    assert stored("      keys: [abc, def]") == "      keys: ['***', '***']"
    assert stored("      logins: {a: {key: abc}}") == "      logins: {a: {key: '***'}}"


def test_a_key_that_a_validator_has_moved_is_masked_where_it_is() -> None:
    assert stored("      keys: abc") == "      keys: '***'"


def test_what_the_environment_gives_stays_a_variable() -> None:
    line = "      login: {{key: '{}'}}"
    kept = line.format("${KEY}")
    assert stored(kept, {"KEY": LONG}) == kept
    assert stored(line.format("${KEY:-abc}")) == line.format("${KEY:-***}")
    assert stored(line.format("${KEY:-abc}"), {"KEY": LONG}) == line.format("${KEY:-***}")
    assert stored(line.format("${KEY:-}")) == line.format("${KEY:-}")


def test_what_is_written_besides_a_variable_is_masked() -> None:
    line = "      login: {{key: {}}}"
    for written, kept in (
        ("'hunter2-${TEAM}'", "'***${TEAM}'"),
        ('"${TEAM}-hunter2"', "'${TEAM}***'"),
        ("'${TEAM}a${TEAM:-b}'", "'${TEAM}***${TEAM:-***}'"),
        ("'pa$${ssw0rd'", "'***'"),
        ("'$${TEAM}'", "'***'"),
        ("'${TEAM}${secret:KEY}'", "'${TEAM}${secret:KEY}'"),
        ("'${secret:KEY:-abc}'", "'${secret:KEY:-***}'"),
    ):
        assert stored(line.format(written), {"TEAM": "red", "KEY": "x"}) == line.format(kept)


def test_names_say_secret_without_the_class() -> None:
    assert stored("      notes: {db_password: abc, user: me, token_limit: x}") == (
        "      notes: {db_password: '***', user: me, token_limit: x}"
    )
    assert stored("      notes: {password: 1234, key: 5, secret: true}") == (
        "      notes: {password: '***', key: 5, secret: true}"
    )
    assert stored("      notes: {header: '${HF_TOKEN:-abc}', cam: '${CAM:-def}'}") == (
        "      notes: {header: '${HF_TOKEN:-***}', cam: '${CAM:-def}'}"
    )
    shown = bound("      notes: {api_keys: [abc], a: {secret: {b: xyz}}}").spec.tasks[0]
    assert shown.masked_config == {"notes": {"api_keys": ["***"], "a": {"secret": {"b": "***"}}}}
    assert shown.secrets == {"abc", "xyz"}


def test_the_values_of_plain_variables_are_kept_for_a_replay() -> None:
    config = (
        "      login: {user: '${CAM}', key: '${CODE}'}\n      notes: {a: '${N:-3}', b: '${HEX}'}"
    )
    env = {"CAM": "front", "CODE": "4711", "HEX": "x-4711-y"}
    assert bound(config, env).spec.environment == {"CAM": "front", "N": ""}


@pytest.mark.parametrize("length", [11, 12])
def test_secrets_of_twelve_characters_are_masked_elsewhere_in_the_graph(length: int) -> None:
    secret = "k" * length
    config = "      login: {{key: {0}}}\n      command: [server, {1}]"
    shown = "'***'" if length == 12 else secret
    assert stored(config.format(secret, secret)) == config.format("'***'", shown)
    block = "      login:\n        key: {0}\n      command:\n        - --key={1}  # not {1}"
    shown = "--key=***  # not ***" if length == 12 else f"--key={secret}  # not {secret}"
    kept = "      login:\n        key: '***'\n      command:\n        - " + shown
    assert stored(block.format(secret, secret)) == kept


def test_a_stand_in_for_a_key_may_be_the_name_of_something() -> None:
    config = "      login: {{key: {}, user: ollama}}\n      command: [ollama, serve]"
    assert stored(config.format("ollama")) == config.format("'***'")


def test_a_long_key_is_masked_in_other_texts_too() -> None:
    config = "      login: {{key: {0}}}\n      command: [server, --key={1}]  # {1}"
    assert stored(config.format(LONG, LONG)) == config.format("'***'", "***")
    shown = masked_graph(bound(config.format(LONG, LONG)).spec)["tasks"][0]["config"]
    assert shown == {"login": {"key": "***"}, "command": ["server", "--key=***"]}


def test_keys_are_among_the_secrets_of_the_task() -> None:
    graph = bound(f"      login: {{key: {LONG}}}\n      keys: [abc]")
    assert graph.spec.secrets == {LONG, "abc"}
    assert graph.tasks[0].spec is graph.spec.tasks[0]
