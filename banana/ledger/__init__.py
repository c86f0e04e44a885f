"""What is recorded: requests with a key, tasks and what was spent; on the disk, for all workers."""
