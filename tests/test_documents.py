"""Documents that others may have written are read within limits, or refused with what was expected."""

import json

import pytest
from hypothesis import given, strategies as st

from vidlat.documents import Fields, parse_json, read_json
from vidlat.errors import SHOWN_LETTERS, shown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_json_can_hold_is_read_as_it_is(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("NaN", "holds NaN"),
        ("[-Infinity]", "holds -Infinity"),
        ("[-1e999]", "holds '-1e999', which is no number"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": {"b": 1, "b": 1}}', "'b' is given twice"),
        ("9" * 5000, "limit"),
        ("", "Expecting value"),
        (b"\xff\xfe\xfd", "decode"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_plain_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_a_document_is_no_larger_than_expected(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2]")
    assert read_json(tmp_path / "a.json", 6) == [1, 2]
    with pytest.raises(OSError, match="has 6 bytes; expected 5 at most"):
        read_json(tmp_path / "a.json", 5)


WRONG = {
    "whole": (("1", 1.0, True, None, [], 0, 11, 10**400), lambda f: f.whole("x", 1, 10)),
    "number": (("1", True, None, [1], -1, 11, 10**400, 1e300), lambda f: f.number("x", 0, 10)),
    "any number": (("1", True, None, 10**400), lambda f: f.number("x")),
    "numbers": ((1, [1], [1, 2, 3], [1, "2"], [1, True], [1, 99]), lambda f: f.numbers("x", 2, 0, 10)),
    "whole_list": ((1, [0], [11], [1.0], [True], [1, 1, 1]), lambda f: f.whole_list("x", 2, 10)),
    "boolean": ((0, 1, "true", None), lambda f: f.boolean("x")),
    "booleans": ((True, [1], [True] * 3), lambda f: f.booleans("x", 2)),
    "text": ((1, None, ["a"], {}), lambda f: f.text("x")),
    "texts": (("ab", [1], ["a", None], {"a": 1}), lambda f: f.texts("x")),
    "pairs": (("ab", ["ab"], [["a"]], [["a", 1]], [["a", "b", "c"]]), lambda f: f.pairs("x")),
    "fields": (([], "a", 1, None), lambda f: f.fields("x")),
    "objects": (({}, [1], [{}, []]), lambda f: f.objects("x")),
    "all_texts": (({"y": 1},), lambda f: f.fields("x").all_texts()),
    "wholes": (({"y": "1"}, {"y": -1}), lambda f: f.fields("x").wholes(0, 9)),
}


@pytest.mark.parametrize(
    ("value", "kind"), [(value, kind) for kind, (values, _) in WRONG.items() for value in values], ids=shown
)
def test_a_field_of_another_kind_is_refused_with_what_was_expected(value, kind):
    with pytest.raises(ValueError, match=r"^[xy]: got .*; expected "):
        WRONG[kind][1](Fields({"x": value}, "it"))


@pytest.mark.parametrize("kind", WRONG)
def test_a_lost_field_is_named(kind):
    with pytest.raises(ValueError, match="it: has no x"):
        WRONG[kind][1](Fields({}, "it"))


def test_fields_that_are_right_are_returned():
    fields = Fields({"i": 3, "f": 2.5, "t": "a", "p": [["a", "b"]], "b": [True]}, "it")
    assert (fields.whole("i", 3, 3), fields.number("f"), fields.number("i")) == (3, 2.5, 3.0)
    assert (fields.text("t"), fields.pairs("p"), fields.booleans("b", 1)) == ("a", [("a", "b")], [True])


@given(JSON)
def test_a_value_is_shown_on_one_short_line(value):
    text = shown(value)
    assert len(text) <= SHOWN_LETTERS + 3
    assert text.isprintable()


def test_values_that_cannot_be_written_are_shown():
    deep = [1]
    for _ in range(60):
        deep = [deep] * 9  # 9**60 numbers, in 60 lists
    for value in (deep, 10**5000, [10**5000], "\x1b" * 10_000):
        assert len(shown(value)) <= SHOWN_LETTERS + 3
        assert shown(value).isprintable()
