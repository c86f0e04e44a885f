"""A stand-in for Google's Gemini image API that runs: for the demo, the tests and the bench.

Written from Google's documentation alone; it imports nothing of `banana`, so that one misreading cannot pass in both.
"""
