"""JSON whose long strings stay where they lie."""

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banana.payload.lazyjson import LONG_STRING_BYTES, InvalidJson, LazyJsonParser, LongString, with_texts

LONG = "A" * LONG_STRING_BYTES
# Letters that JSON escapes, that UTF-8 takes several bytes for, and the placeholder's own NUL.
texts = st.text(alphabet=st.sampled_from('aA/="\\\0\n\u2028é🍌'), max_size=12)
strings = st.one_of(texts, texts.map(lambda text: LONG + text), texts.map(lambda text: text + LONG + text))
numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
documents = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, strings),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(strings, inner, max_size=4)),
    max_leaves=12,
)


def parse(raw: bytes, cuts: list[int]) -> Any:
    parser = LazyJsonParser()
    borders = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    for start, end in itertools.pairwise(borders):
        parser.feed(raw[start:end])
    return parser.close()


@given(documents, st.booleans(), st.sampled_from([None, 1]), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_legal_json_in_any_chunks_means_what_a_plain_parser_says(
    document: Any, ascii_only: bool, indent: int | None, cuts: list[int]
) -> None:
    """Whatever legal JSON comes in whatever chunks, its value is that of json.loads."""
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).replace("/", "\\/").encode()

    assert with_texts(parse(raw, cuts)) == json.loads(raw)


@given(st.binary(max_size=60), st.lists(st.integers(0, 100), max_size=5))
def test_any_bytes_are_json_or_refused(raw: bytes, cuts: list[int]) -> None:
    """Bytes that are not JSON raise InvalidJson and nothing else."""
    try:
        expected = json.loads(raw.decode("utf-8"))
    except ValueError:
        with pytest.raises(InvalidJson):
            with_texts(parse(raw, cuts))
        return
    if raw[:3] == b"\xef\xbb\xbf" or (isinstance(expected, float) and not math.isfinite(expected)):
        return  # Python's parser takes NaN, which is not JSON
    try:
        assert with_texts(parse(raw, cuts)) == expected
    except InvalidJson as error:
        assert "range" in str(error) or "surrogate" in str(error) or "truncated" in str(error)  # noqa: PT017


def test_a_long_string_is_views_of_the_chunks_it_came_in() -> None:
    """A long string is not copied: its pieces are memory of the chunks."""
    raw = b'{"data":"' + LONG.encode() * 3 + b'"}'
    chunks = [raw[:5000], raw[5000:7000], raw[7000:]]
    parser = LazyJsonParser()
    for chunk in chunks:
        parser.feed(chunk)

    value = parser.close()["data"]

    assert isinstance(value, LongString)
    assert [piece.obj for piece in value.pieces if isinstance(piece, memoryview)] == chunks
    assert b"".join(value.pieces) == LONG.encode() * 3


def test_only_what_is_behind_the_first_escape_is_copied() -> None:
    """Google escapes the padding: the megabytes before it stay views."""
    parser = LazyJsonParser()
    parser.feed(b'"' + LONG.encode() + b'\\u003d\\u003d"')

    pieces = parser.close().unescaped()

    assert bytes(pieces[0]) == LONG.encode()
    assert isinstance(pieces[0], memoryview)
    assert pieces[1] == b"=="


@pytest.mark.parametrize("raw", [b'"abc', b'{"a":"' + b"\\" * 2001, b"[" * 5000, b"", b'{"a":1}}', b'["a",]'])
def test_what_is_cut_short_or_nested_too_deep_is_refused(raw: bytes) -> None:
    """An open string, an open bracket, nesting without end and nothing at all are InvalidJson."""
    with pytest.raises(InvalidJson):
        parse(raw, [])


def test_a_document_of_bones_alone_is_refused() -> None:
    """A megabyte of structure is no request and no answer; it is not parsed."""
    with pytest.raises(InvalidJson, match="beside its long strings"):
        parse(b"[" + b"1," * 600_000 + b"1]", [])


def test_a_document_of_short_strings_alone_is_refused() -> None:
    """Each costs a step: twenty thousand are no request, and are refused before more are looked at."""
    with pytest.raises(InvalidJson, match="more than 20000 strings"):
        parse(b"[" + b'"",' * 300_000 + b'""]', [])


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 9])
def test_a_byte_order_mark_is_passed_over(cut: int) -> None:
    """Windows' editors write one."""
    assert parse(b'\xef\xbb\xbf{"a":1}', [cut]) == {"a": 1}


@pytest.mark.parametrize(
    "odd", [b"NaN", b"-Infinity", b'"\\ud800"', b"9" * 400, b"-" + b"9" * 6000, b"1e999", b'"a\nb"', b'"\xff\xfe"'],
    ids=["NaN", "infinity", "surrogate", "400 digits", "6000 digits", "1e999", "newline", "no UTF-8"],
)  # fmt: skip
def test_a_lenient_parser_takes_what_is_odd(odd: bytes) -> None:
    """Beside a picture that was paid for, anything that can be read may stand; elsewhere JSON is JSON."""
    parser = LazyJsonParser(lenient=True)
    parser.feed(b'{"odd":%s,"picture":"%s"}' % (odd, LONG.encode()))

    document = parser.close()

    assert with_texts(document["picture"]) == LONG
    strict = LazyJsonParser()
    strict.feed(b'{"odd":%s}' % odd)
    if odd not in (b"9" * 400, b"-" + b"9" * 6000):
        with pytest.raises(InvalidJson):
            strict.close()


@pytest.mark.parametrize("filler", ["", "x" * 2000])
def test_half_a_pair_becomes_a_character_that_can_be_written(filler: str) -> None:
    """Whole pairs and escaped backslashes stay as they are, in short strings and in long ones."""
    parser = LazyJsonParser(lenient=True)
    text = rf"{filler}\ud83d\ude00 \ud83d \ude00 \\ud83d \\\ud83d"
    parser.feed(f'["{text}"]'.encode())

    (read,) = with_texts(parser.close())

    assert read == filler + "\U0001f600 \ufffd \ufffd \\ud83d \\\ufffd"
    assert read.encode()
