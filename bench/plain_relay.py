"""The relay as most people write it: FastAPI, pydantic models and httpx; the bench compares with it."""

import os

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
client = httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=2000))
url = os.environ["GEMINI_BASE_URL"] + "/models/gemini-3-pro-image:generateContent"


class GenerateRequest(BaseModel):
    """What to make."""

    prompt: str
    image_base64: str | None = None


class GenerateResponse(BaseModel):
    """What was made."""

    images: list[str]


@app.post("/generate")
async def generate(request: GenerateRequest) -> GenerateResponse:
    """Forward the prompt, decode the answer, encode it again."""
    parts: list[dict[str, object]] = [{"text": request.prompt}]
    if request.image_base64:
        parts.append({"inlineData": {"mimeType": "image/jpeg", "data": request.image_base64}})
    response = await client.post(url, json={"contents": [{"parts": parts}]}, headers={"x-goog-api-key": "k"})
    response.raise_for_status()
    found = response.json()["candidates"][0]["content"]["parts"]
    return GenerateResponse(images=[part["inlineData"]["data"] for part in found if "inlineData" in part])
