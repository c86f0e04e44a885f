"""BananaService: a relay between your programs and Google's Gemini image models."""

__version__ = "2.1.0"
