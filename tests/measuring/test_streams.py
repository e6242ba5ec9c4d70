"""Acceptance over time: two drafters on one stream, of which one learns, and what the page says of them."""

from accelgen.measuring import streams
from accelgen.site import over_time
from reference_impls import zoo
from reference_impls.core.generation import Generation, Step

CODE = 'def f():\n    """' + "A word and another one. " * 20 + '"""\n\n\nclass A:\n    """Short."""\n'


def test_prose_is_the_long_docstrings():
    assert [text[:11] for text in streams.prose(CODE)] == ["A word and "]
    assert [*streams.prose("print 'another Python'")] == []
    assert [*streams.prose('"""' + "x" * streams.LONG + '"""')] == ["x" * streams.LONG]


def test_prompts_begin_with_a_line_and_have_one_length():
    texts = [f"value_{i} = compute({i})\n" * 40 for i in range(5)]
    found = [*streams.beginnings(texts, 6, 3)]
    assert [len(tokens) for tokens in found] == [streams.PROMPT] * 6
    assert all(zoo.decode(tokens).startswith("value_") for tokens in found)
    assert found == [*streams.beginnings(texts, 6, 3)]
    assert found != [*streams.beginnings(texts, 6, 4)]


def test_what_is_accepted_is_counted_over_all_texts():
    runs = [
        Generation([1, 2, 3], [Step([1, 2], [1, 7, 7], kept=1), Step([3], [3], kept=1)]),
        Generation([4], [Step([4], [5, 6])]),
    ]
    assert streams.accepted(runs) == (2 / 6, 4 / 3)


def test_both_drafters_see_one_stream_and_begin_alike():
    prompts = [zoo.encode(text) for text in zoo.prompts("development")[:8]]
    found = streams.figures({"first": prompts[:4], "second": prompts[4:]}, interval=2, rate=1e-2, window=2, limit=10)
    assert [(row.domain, row.texts, row.updates) for row in found.rows] == [
        ("first", 2, 0), ("first", 4, 1), ("second", 6, 2), ("second", 8, 3),
    ]  # fmt: skip
    assert found.rows[0].learning == found.rows[0].frozen
    assert any(row.learning != row.frozen for row in found.rows[1:])
    runs, updates = streams.serve({"all": prompts}, None, 1e-2, limit=10)
    assert updates == [0] * 8
    assert [row.frozen for row in found.rows] == [streams.accepted(runs[i : i + 2])[0] for i in range(0, 8, 2)]
    assert {len(run.tokens) for run in runs} == {10}


def test_the_page_of_the_method_has_chart_and_table():
    prompts = [zoo.encode(text) for text in zoo.prompts("development")[:4]]
    found = streams.figures({"first": prompts[:2], "second": prompts[2:]}, window=2, limit=8)
    text = over_time.figures(found.id, found.as_data())
    assert text.count('role="img"') == 1
    assert all(f"| {row.learning:.1%} |" in text for row in found.rows)
    assert not over_time.figures("another", found.as_data())
    assert not over_time.figures(found.id, None)
