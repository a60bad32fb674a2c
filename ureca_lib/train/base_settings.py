"""Settings of the tiny base's training."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BaseSettings:
    """How the tiny base is trained."""

    width: int = field(default=160, metadata={"help": "hidden size of both transformers"})
    depth: int = field(default=4, metadata={"help": "layers of each"})
    scenes: int = field(default=12_000, metadata={"help": "of the training split, seen in turn"})
    validation_scenes: int = field(default=100, metadata={"help": "of the validation split"})
    steps: int = field(default=6000, metadata={"help": "steps of the optimizer"})
    patch_steps: int = field(default=1000, metadata={"help": "first steps, without captions"})
    aid_weight: float = field(default=0.1, metadata={"help": "of those steps' losses after them"})
    look_weight: float = field(default=0.1, metadata={"help": "of the loss on where to look"})
    scenes_a_step: int = field(default=16, metadata={"help": "of all processes together"})
    regions_a_scene: int = field(default=16, metadata={"help": "drawn from a scene each time"})
    patch_learning_rate: float = field(default=2e-3, metadata={"help": "highest, first steps"})
    learning_rate: float = field(default=1.2e-3, metadata={"help": "highest, then a cosine"})
    restart: int = field(default=3000, metadata={"help": "step of a second cosine; 0 for none"})
    restart_learning_rate: float = field(default=8e-4, metadata={"help": "highest, of that one"})
    warmup_steps: int = field(default=100, metadata={"help": "of each of these parts"})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's"})
    processes: int = field(default=2, metadata={"help": "one thread each, gradients averaged"})
    bf16: bool | None = field(
        default=None, metadata={"help": "autocast; by default where the CPU multiplies bfloat16"}
    )
    seed: int = field(default=0, metadata={"help": "of weights, regions and gaps"})
    save_every: int = field(default=200, metadata={"help": "steps between checkpoints"})

    @property
    def cosines(self) -> list[tuple[int, int, float]]:
        """First step, end and highest rate: patches alone, then captions once or twice."""
        starts = [(0, self.patch_learning_rate)] if self.patch_steps else []
        starts.append((self.patch_steps, self.learning_rate))
        if self.patch_steps < self.restart < self.steps:
            starts.append((self.restart, self.restart_learning_rate))
        ends = [start for start, _ in starts[1:]] + [self.steps]
        return [(start, end, rate) for (start, rate), end in zip(starts, ends, strict=True)]
