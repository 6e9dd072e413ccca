"""The program behind `runner = "code-mode"`: runs a script inside Codex and says its result (source: spec 3.2)."""
