"""What was made and is kept: carried out once for a key or a task, found again, fetched by links."""
