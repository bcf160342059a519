"""A condition on videos holds as it would in Python, and nothing in it is ever run."""

import pytest
from hypothesis import given, strategies as st

from vidlat.errors import ConfigError
from vidlat.where import MOST_LETTERS, KnownVideo, parse_where, videos_where

VIDEOS = [
    KnownVideo("p1/a_L1.avi", "p1", 32, 25.0, {"view": "A4C", "EF": "55.0", "fps": "hand held"}),
    KnownVideo("p1/b_L2.avi", "p1", 1, 0.0, {"view": "A2C", "EF": "", "Ejection Fraction": "40"}),
    KnownVideo("p2/c_L1.avi", "p2", 16, 50.0, {"view": "A4C", "EF": "n/a", "class": "3"}),
    KnownVideo("p3/d.avi", "", 8, 30.0, {}),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("view == 'A4C'", "ac"),
        ('view != "A4C"', "bd"),
        ("not view == 'A4C'", "bd"),
        ("view == 'A4C' and not EF >= 50", "c"),
        ("EF >= 50", "a"),
        ("EF == 55", "a"),
        ("EF != 55", "bcd"),
        ("EF < 100 or num_frames == 8", "ad"),
        ("EF == ''", "bd"),
        ("10 < num_frames <= 32", "ac"),
        ("num_frames > 8 and view == 'A4C' or subject == ''", "acd"),
        ("num_frames > 8 and (view == 'A2C' or subject == 'p2')", "c"),
        ("view in ('A2C', 'PLAX')", "b"),
        ("view not in ['A2C', 'A4C']", "d"),
        ("EF in (55, 40)", "a"),
        ("view in ('A4C')", "ac"),  # no list to Python
        ("view not in 'A4'", "abcd"),
        ("EF in (55)", "a"),
        ("'_L1' in video_id", "ac"),
        ("'_L1' not in video_id", "bd"),
        ("subject in video_id", "abc"),  # to Python '' is in each
        ("subject not in video_id", "d"),
        ("fps == 0", "b"),
        ("fps > 29.9", "cd"),
        ("fps > -1", "abcd"),
        ("labels['fps'] == 'hand held'", "a"),
        ("labels['Ejection Fraction'] < 50", "b"),
        ("labels['class'] == 3", "c"),
        ("subject >= 'p2'", "c"),
        (" view=='A4C'\n", "ac"),
    ],
)
def test_a_condition_holds_for(text, expected):
    assert [video_id[3] for video_id in videos_where(text, VIDEOS)] == list(expected)


@pytest.mark.parametrize(
    "text",
    [
        "", "view", "'A4C'", "view = 'A4C'", "view == A4C()", "__import__('os').system('true') == 0",
        "view.upper() == 'A4C'", "[v for v in view] == 'A'", "lambda: 1", "view == 'A4C' if 1 else 0",
        "EF + 1 > 2", "view is 'A4C'", "EF > True", "EF == None", "labels[view] == '1'", "fps[0] == 1",
        "(" * 500 + "EF > 1" + ")" * 500, "not " * 1000 + "EF > 1", "EF > 1 " * 500, "EF > 1\nEF > 2",
        "view == 'A4C",
        f"EF > 1 and video_id != '{'a' * MOST_LETTERS}'",
        "EF > 1\0", "view in 5 + 5", "f'{view}' == 'a'", "EF := 3", "view == b'A4C'", "EF > 1j",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match=r"^where: got .*; expected comparisons of labels") as refused:
        parse_where(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_unknown_label_and_no_video_are_refused():
    with pytest.raises(ConfigError) as refused:
        videos_where("vew == 'A4C'", VIDEOS)
    assert str(refused.value) == (
        "where: no video has a label 'vew'; known are subject, video_id, num_frames, fps, EF, "
        "Ejection Fraction, class, fps, view"
    )
    with pytest.raises(ConfigError, match=r"'A4C'; texts go in quotes: view in \('A4C', 'A2C'\); known"):
        videos_where("num_frames > 1 and view in (A4C, 'A2C')", VIDEOS)
    with pytest.raises(ConfigError, match=r"^where: view == 'PLAX' holds for none of 4 videos$"):
        videos_where("view == 'PLAX'", VIDEOS)


numbers, texts = st.integers(-3, 3), st.text("ab", max_size=2)
compared = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
number_conditions = st.builds("{} {} {}".format, st.sampled_from(["num_frames", "n"]), compared, numbers)
text_conditions = st.builds("{} {} {!r}".format, st.sampled_from(["subject", "t"]), compared, texts)
memberships = st.builds("{} in ({!r}, 'b')".format, st.sampled_from(["subject", "t"]), texts)
conditions = st.recursive(
    number_conditions | text_conditions | memberships,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: "({}) {} ({})".format(*parts)
        ),
    ),
    max_leaves=6,
)


@given(conditions, numbers, numbers, texts, texts)
def test_conditions_hold_where_python_says_so(text, num_frames, n, subject, t):
    video = KnownVideo("v", subject, num_frames, 25.0, {"n": str(n), "t": t})
    names = {"num_frames": num_frames, "n": n, "subject": subject, "t": t}
    assert parse_where(text)[0](video) == eval(text, {}, names)
