"""What is sent to Gemini: a conversation, and the body around it."""

import json

import pytest

from banana.google.contents import GenerateContentRequest, Part, Turn, conversation, field_of, request_size, user_turn
from banana.payload.pictures import EncodedPicture


def test_a_request_is_its_pieces() -> None:
    """Joined they are Google's JSON; the picture's piece is the one that came."""
    piece = memoryview(b"QUJD")
    request = GenerateContentRequest(
        [user_turn('a "b"', [EncodedPicture("image/jpeg", [piece], b"")])], "16:9", None, True
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
                    {"text": "Here."},
                    {"inlineData": {"mimeType": "image/png", "data": "QUJD"}, "thoughtSignature": "c2ln"},
                ],
            },
            {"role": "user", "parts": [{"text": "at night"}]},
        ],
        "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
    }


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (b'{"contents":[{"parts":[{"text":"abc"},{"inlineData":{"data":"QUJD"}}]}]}', (None, 20, 1)),
        (b'{"generation_config":{"image_config":{"image_size":"4K"}}}', ("4K", 41, 0)),
        (b"not json", ("unknown", 8, 0)),
    ],
)
def test_the_size_of_a_callers_own_body(body: bytes, size: tuple[str | None, int, int]) -> None:
    """Its image size, the bytes of its words, the pictures in it; of what cannot be read, all of it."""
    assert request_size([body[:20], body[20:]]) == size


def test_a_field_has_two_names() -> None:
    """Google's side knows both."""
    assert field_of({"inline_data": 1}, "inlineData") == field_of({"inlineData": 1}, "inlineData") == 1


def test_the_sides_of_a_conversation_take_turns() -> None:
    """Neighbours of one side are one turn; what says nothing is none."""
    said = [user_turn("a"), Turn([], is_model=True), user_turn("b"), Turn([Part("c")], is_model=True), Turn([])]

    assert conversation(said) == [Turn([Part("a"), Part("b")]), Turn([Part("c")], is_model=True)]
