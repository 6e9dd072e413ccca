"""Pydantic models as values, where pydantic is installed: nothing here imports it (source: API, values)."""

from typing import Any


def is_model(cls: Any) -> bool:
    """Whether a class is a model of Pydantic 2."""
    return hasattr(cls, "__pydantic_serializer__") and hasattr(cls, "model_validate_json")


def dump(model: Any) -> Any:
    """What its JSON holds, so that `load` gives an equal model."""
    return model.model_dump(mode="json", by_alias=True, round_trip=True)


def load(cls: Any, text: bytes) -> Any:
    """A model from its JSON. Raises a ValueError that says what is wrong."""
    return cls.model_validate_json(text)
