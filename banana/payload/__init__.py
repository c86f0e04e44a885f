"""Megabytes that are pointed at, never copied: JSON, forms and pictures as the pieces they came in. No I/O."""
