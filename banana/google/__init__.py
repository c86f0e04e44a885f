"""How Google is called: one client a worker, its keys, slots and retries, and Gemini's wire format."""
