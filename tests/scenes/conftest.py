"""Scenes that several tests look at."""

from __future__ import annotations

import pytest

from ureca_lib.scenes import Scene, SceneSpecification, generate_scene


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    """Scenes of all three splits."""
    spec = SceneSpecification()
    seeds = [*spec.seeds("train", 40), *spec.seeds("validation", 10), *spec.seeds("test", 10)]
    return [generate_scene(seed) for seed in seeds]
