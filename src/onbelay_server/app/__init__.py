"""The use cases, one public class a file, and the engine that drives runs."""
