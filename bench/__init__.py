"""What the service weighs, measured against what it stands beside: `python -m bench`."""
