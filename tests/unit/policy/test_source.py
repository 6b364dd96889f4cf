"""Tenant files as text: what a scalar means, where a mistake stands, and what a hostile file can't do."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.policy.source import MAX_BYTES, MAX_DEPTH, Mistake, Source, SourceError, read_source

Read = Callable[[str | bytes], Source]
Refused = Callable[[str | bytes], Mistake]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a file and read it."""

    def written(content: str | bytes) -> Source:
        path = tmp_path / "acme.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_source(path)

    return written


@pytest.fixture
def refused(read: Read) -> Refused:
    """Write a file and return the mistake in it."""

    def mistaken(content: str | bytes) -> Mistake:
        with pytest.raises(SourceError) as error:
            read(content)
        return error.value.mistake

    return mistaken


def place(mistake: Mistake) -> tuple[int, int]:
    return mistake.line, mistake.column


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        # Text in YAML 1.2, something else in 1.1.
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0b101", "0b101"),
        ("2026-11-30", "2026-11-30"),
        ("0777", 777),
        # Typed in both.
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("10", 10),
        ("-5", -5),
        ("+5", 5),
        ("0x10", 16),
        ("0o17", 15),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1e3", 1000.0),
        # Text whatever it looks like, since it is quoted or a block.
        ('"5"', "5"),
        ("'true'", "true"),
        ("|\n  5", "5\n"),
        ("tRue", "tRue"),
    ],
)
def test_scalars_follow_the_core_schema(read: Read, scalar: str, value: Any) -> None:
    found = read(f"a: {scalar}\n").tree["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("digits", [4301, 100_000])
def test_a_number_of_thousands_of_digits_is_a_mistake(refused: Refused, digits: int) -> None:
    assert place(refused(f"tenant: acme\nport: {'9' * digits}\n")) == (2, 7)


def test_keys_are_text_whatever_they_look_like(read: Read) -> None:
    assert read("1: a\ntrue: b\n~: c\n").tree == {"1": "a", "true": "b", "~": "c"}


def test_everything_in_the_file_has_its_place(read: Read) -> None:
    source = read("tenant: acme\nidentity:\n  - issuer: x\n    audience: [a, b]\nsession: {workflow: {id: wf}}\n")
    assert source.places["identity",] == (2, 1)
    assert source.places["identity", 0] == (3, 5)
    assert source.places["identity", 0, "audience"] == (4, 5)
    assert source.places["identity", 0, "audience", 1] == (4, 19)
    assert source.places["session", "workflow", "id"] == (5, 22)


@pytest.mark.parametrize(
    ("content", "where", "why"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1), "`a` stands here a second time; the first is on line 1"),
        ("a:\n  b: 1\n  b: 2\n", (3, 3), "the first is on line 2"),
        ("a: {b: 1, b: 1}\n", (1, 11), "second time"),
        ("a: [{b: 1}, {c: 1, c: 2}]\n", (1, 20), "second time"),
        ("a: 1\n'a': 2\n", (2, 1), "second time"),
        ("a: 1\nc:\n  <<: {b: 1}\n", (3, 3), "merge keys are not read; use `extends`"),
        ("a: &x [1]\nb: *x\n", (2, 4), "aliases are not read"),
        ("a: &x [*x]\n", (1, 8), "aliases are not read"),
        ("a: 1\n*x : 2\n", (2, 1), "aliases are not read"),
        ("a:\n  ? [b]\n  : 1\n", (2, 5), "a key must be plain text"),
        ("- a\n- b\n", (1, 1), "no map"),
        ("just text\n", (1, 1), "no map"),
        ("", (1, 1), "no map"),
        ("# a comment\n", (1, 1), "no map"),
        ("a:\n\tb: 1\n", (2, 1), "not valid YAML"),
        ("a: 1\nb: c: d\n", (2, 5), "not valid YAML"),
        ("a: 1\r\nb: [1\r\nc: 2\r\n", (3, 2), "not valid YAML"),
        ("a: 1\nb: *nobody\n", (2, 4), "alias"),
        ("a: 1\n---\nb: 2\n", (2, 1), "a second document"),
        ("a:\n  ? {b: 1}\n  : 1\n", (2, 5), "a key must be plain text"),
    ],
)
def test_a_mistake_has_its_place(refused: Refused, content: str, where: tuple[int, int], why: str) -> None:
    mistake = refused(content)
    assert (place(mistake), why in mistake.message) == (where, True), mistake


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\x07", b"\x00"])
def test_a_byte_that_may_not_stand_there_has_its_line(refused: Refused, bad: bytes) -> None:
    assert refused(b"tenant: acme\nuser: " + bad + b"\n").line == 2


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("!!python/object/apply:os.system ['touch pwned']", ["touch pwned"]),
        ("!!python/name:os.system x", "x"),
        ("!!python/object:os.environ {a: 1}", {"a": 1}),
        ("!secret b", "b"),
        ("!!int '5'", "5"),
        ("!!binary aGk=", "aGk="),
        ("! 5", 5),
    ],
)
def test_a_tag_means_nothing(read: Read, tmp_path: Path, value: str, read_as: Any) -> None:
    assert read(f"user: {value}\n").tree == {"user": read_as}
    assert [path.name for path in tmp_path.iterdir()] == ["acme.yaml"]


def test_a_bomb_of_aliases_is_refused_at_the_first(refused: Refused) -> None:
    floors = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    floors += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert place(refused("\n".join(floors))) == (2, 10)


def test_a_file_has_a_largest_size(read: Read, refused: Refused) -> None:
    line = f"a: {'x' * 95}\n"
    assert read(line + "#" * (MAX_BYTES - len(line))).tree
    assert "larger than" in refused(line + "#" * MAX_BYTES).message


def test_nesting_as_deep_as_allowed_is_read(read: Read) -> None:
    assert read("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)).tree


@pytest.mark.parametrize("depth", [MAX_DEPTH, 1000, 5000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("\n- ", "")])
def test_nesting_too_deep_is_a_mistake(refused: Refused, depth: int, opening: str, closing: str) -> None:
    nested = opening * depth + "1" + closing * depth if opening != "\n- " else "\n" + "- " * depth + "1"
    mistake = refused("a: " + nested)
    assert f"nested deeper than {MAX_DEPTH} levels" in mistake.message


def test_nesting_of_100_000_levels_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "acme.yaml"
    path.write_text("a: " + "[" * 100_000 + "]" * 100_000)
    program = (
        "import sys; from pathlib import Path; from service.policy.source import SourceError, read_source\n"
        "try: read_source(Path(sys.argv[1]))\n"
        "except SourceError as error: print(error.mistake.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "nested deeper" in done.stdout) == (0, True), done.stderr[-500:]


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "dir.yaml").mkdir()
    for name in ("dir.yaml", "gone.yaml"):
        with pytest.raises(SourceError) as error:
            read_source(tmp_path / name)
        assert "can't be read" in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(read: Read) -> None:
    assert read(b"\xef\xbb\xbftenant: acme\n").tree == {"tenant": "acme"}


def test_a_mistake_reads_as_editors_and_compilers_write_places(refused: Refused, tmp_path: Path) -> None:
    mistake = refused("a: 1\na: 2\n")
    assert str(mistake) == f"{tmp_path / 'acme.yaml'}:2:1: {mistake.message}"
