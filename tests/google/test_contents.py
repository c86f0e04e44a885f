"""What is sent to Gemini: a conversation, and the body around it."""

import json

import pytest

from banana.google.contents import (
    CostBasis,
    GenerateContentRequest,
    Part,
    Turn,
    conversation,
    cost_basis_of,
    field_of,
    user_turn,
)
from banana.payload.pictures import EncodedPicture


def test_a_request_is_its_pieces() -> None:
    """Joined they are Google's JSON; the picture's piece is the one that came."""
    piece = memoryview(b"QUJD")
    request = GenerateContentRequest(
        [user_turn('a "b"', [EncodedPicture("image/jpeg", [piece], b"")])], "16:9", store=True
    )

    pieces = request.body()

    assert any(one is piece for one in pieces)
    assert json.loads(b"".join(pieces)) == {
        "contents": [
            {"role": "user", "parts": [{"text": 'a "b"'}, {"inlineData": {"mimeType": "image/jpeg", "data": "QUJD"}}]}
        ],
        "generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": {"aspectRatio": "16:9"}},
        "store": True,
    }


def test_a_conversation_keeps_its_sides_and_its_signatures() -> None:
    """The model's pictures go back as the model's, with what it signed them with; the system's words stand apart."""
    picture = EncodedPicture("image/png", [b"QUJD"], b"")
    turns = [
        user_turn("a banana"),
        Turn([Part("Here."), Part(picture=picture, signature=[b"c2", b"ln"])], is_model=True),
        user_turn("at night"),
    ]

    body = GenerateContentRequest(turns, system="Be brief.", modalities=("TEXT", "IMAGE")).body()

    assert json.loads(b"".join(body)) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "a banana"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Here.", "thoughtSignature": "skip_thought_signature_validator"},
                    {"inlineData": {"mimeType": "image/png", "data": "QUJD"}, "thoughtSignature": "c2ln"},
                ],
            },
            {"role": "user", "parts": [{"text": "at night"}]},
        ],
        "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
    }


@pytest.mark.parametrize(
    ("body", "basis"),
    [
        (
            b'{"contents":[{"parts":[{"text":"abc"},{"inlineData":{"data":"QUJD"}}]}]}',
            CostBasis(text_bytes=20, pictures=1),
        ),
        (b'{"generation_config":{"image_config":{"image_size":"4k"}}}', CostBasis(("4K",), text_bytes=41)),
        (b'{"generationConfig":{"candidateCount":8}}', CostBasis(candidates=8, text_bytes=38)),
        (b'{"generationConfig":{"candidate_count":"3","candidateCount":2}}', CostBasis(candidates=3, text_bytes=54)),
        (b'{"generationConfig":{"candidateCount":1e99}}', CostBasis(candidates=100, text_bytes=38)),
        (
            b'{"generationConfig":{"imageConfig":{"imageSize":"1K"},"responseFormat":{"image":{"imageSize":"IMAGE_SIZE_FOUR_K"}}}}',
            CostBasis(("4K", "1K"), text_bytes=83),
        ),
        (b'{"generationConfig":{},"generation_config":{"x":{"imageSize":5}}}', CostBasis(("unknown",), text_bytes=51)),
        (b"not json", CostBasis(("unknown",), text_bytes=8)),
    ],
)
def test_the_cost_of_a_callers_own_body(body: bytes, basis: CostBasis) -> None:
    """Every size and count that it can be read to ask for, the bytes of its words, the pictures in it."""
    assert cost_basis_of([body[:20], body[20:]]) == basis


def test_a_field_has_two_names() -> None:
    """Google's side knows both."""
    assert field_of({"inline_data": 1}, "inlineData") == field_of({"inlineData": 1}, "inlineData") == 1


def test_the_sides_of_a_conversation_take_turns() -> None:
    """Neighbours of one side are one turn; what says nothing is none."""
    said = [user_turn("a"), Turn([], is_model=True), user_turn("b"), Turn([Part("c")], is_model=True), Turn([])]

    assert conversation(said) == [Turn([Part("a"), Part("b")]), Turn([Part("c")], is_model=True)]
