"""Procedural scenes: exact nested masks, and captions that are proven to fit one region only."""

from ureca_lib.scenes.description import Description, Facts
from ureca_lib.scenes.generate import generate_scene, generate_scenes
from ureca_lib.scenes.lexicon import vocabulary
from ureca_lib.scenes.parsing import GrammarError, parse
from ureca_lib.scenes.phrases import Phrase
from ureca_lib.scenes.scene import Scene, resolve
from ureca_lib.scenes.specification import SceneSpecification
from ureca_lib.scenes.storage import load_scene, save_scene, write_scenes
from ureca_lib.scenes.writing import STYLES, Style

__all__ = [
    "STYLES",
    "Description",
    "Facts",
    "GrammarError",
    "Phrase",
    "Scene",
    "SceneSpecification",
    "Style",
    "generate_scene",
    "generate_scenes",
    "load_scene",
    "parse",
    "resolve",
    "save_scene",
    "vocabulary",
    "write_scenes",
]
