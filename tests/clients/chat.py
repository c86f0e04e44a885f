"""LiteLLM's and LangChain's clients, unmodified, against the service at the address given; prints a line a check.

They want another version of OpenAI's SDK than the project's own tests, so they run in an environment of their own.
"""

import base64
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is asked of another host

import litellm
import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

ADDRESS, TOKEN = sys.argv[1:]
MODEL = "gemini-3-pro-image"
WORDS = [{"role": "user", "content": "a banana"}]
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def is_jpeg(base64_text: str) -> bool:
    return base64.b64decode(base64_text, validate=True).startswith(b"\xff\xd8\xff")


def is_data_uri(url: str) -> bool:
    start, _, picture = url.partition(",")
    return start == "data:image/jpeg;base64" and is_jpeg(picture)


def ask(provider: str, **options: Any) -> Any:
    return litellm.completion(
        model=f"{provider}/{MODEL}", api_base=f"{ADDRESS}/v1", api_key=TOKEN, **{"messages": WORDS} | options
    )


def litellm_chats() -> None:
    for provider in ("openai", "openrouter"):
        message = ask(provider).choices[0].message
        assert message.content == "Here it is."
        assert is_data_uri(message.images[0]["image_url"]["url"])
        again = ask(provider, messages=[*WORDS, message.model_dump(), {"role": "user", "content": "at night"}])
        assert again.usage.completion_tokens == 1350


def litellm_streams() -> None:
    for provider in ("openai", "openrouter"):
        chunks = list(ask(provider, stream=True, stream_options={"include_usage": True}))
        images = [image for chunk in chunks for image in getattr(chunk.choices[0].delta, "images", None) or []]
        assert is_data_uri(images[0]["image_url"]["url"])
        assert chunks[-1].usage.completion_tokens == 1350


def litellm_makes_images() -> None:
    made = litellm.image_generation(
        model=f"openai/{MODEL}", prompt="a banana", n=2, api_base=f"{ADDRESS}/v1", api_key=TOKEN
    )
    assert [is_jpeg(picture.b64_json) for picture in made.data] == [True, True]


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}


def litellm_responds() -> None:
    made = litellm.responses(
        model=f"openai/{MODEL}",
        input="a banana",
        tools=[{"type": "image_generation"}],
        api_base=f"{ADDRESS}/v1",
        api_key=TOKEN,
    )
    item, message = made.output
    assert (message["type"] if isinstance(message, dict) else message.type) == "message"
    assert is_jpeg(item["result"] if isinstance(item, dict) else item.result)


def litellm_raises_its_own_exceptions() -> None:
    for options, kind in (
        ({"messages": [{"role": "user", "content": "[fault:400]"}]}, litellm.BadRequestError),
        ({"api_key": "wrong"}, litellm.AuthenticationError),
        ({"tools": [FUNCTION], "tool_choice": "required"}, litellm.BadRequestError),
    ):
        try:
            litellm.completion(
                **{"model": f"openai/{MODEL}", "api_base": f"{ADDRESS}/v1", "api_key": TOKEN, "messages": WORDS}
                | options
            )
        except kind:
            continue
        raise AssertionError(f"{kind} was not raised")


def langchain_chats() -> None:
    chat = ChatOpenAI(model=MODEL, base_url=f"{ADDRESS}/v1", api_key=TOKEN)
    shown = [{"type": "text", "text": "like this"}, {"type": "image_url", "image_url": {"url": PNG}}]
    answer = chat.invoke([HumanMessage(content=shown)])
    assert answer.content == "Here it is."
    assert answer.usage_metadata["output_tokens"] == 1350
    assert "".join(chunk.content for chunk in chat.stream("a banana")) == "Here it is."


def langchain_draws_with_the_tool() -> None:
    chat = ChatOpenAI(model="gpt-5.5", base_url=f"{ADDRESS}/v1", api_key=TOKEN, use_responses_api=True)
    drawing = chat.bind_tools([{"type": "image_generation", "quality": "low"}])
    blocks = drawing.invoke("a banana").content_blocks
    assert is_jpeg(next(block["base64"] for block in blocks if block["type"] == "image"))
    streamed = None
    for chunk in drawing.stream("a banana"):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    assert any(block["type"] == "image" for block in streamed.content_blocks)


def langchain_raises_openais_exceptions() -> None:
    chat = ChatOpenAI(model=MODEL, base_url=f"{ADDRESS}/v1", api_key=TOKEN)
    try:
        chat.invoke("[fault:400]")
    except openai.BadRequestError:
        return
    raise AssertionError("nothing was raised")


CHECKS: list[Callable[[], None]] = [
    litellm_chats,
    litellm_streams,
    litellm_makes_images,
    litellm_responds,
    litellm_raises_its_own_exceptions,
    langchain_chats,
    langchain_draws_with_the_tool,
    langchain_raises_openais_exceptions,
]
for check in CHECKS:
    check()
    print("ok", check.__name__.replace("_", " "))
