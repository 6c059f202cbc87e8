"""What moves runs on: dispatcher, executor, timekeeper and rescuer."""
