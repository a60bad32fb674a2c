"""FSDP: layers of every preset are found, and sharding them changes neither loss nor gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from tiny_runs import SCENES, free_port, small, write_base
from torch import multiprocessing
from torch.distributed.fsdp import FullyShardedDataParallel

from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import PRESETS, preset_config
from ureca_lib.train.data import RegionCaptionDataset, RegionCollator
from ureca_lib.train.index import open_index
from ureca_lib.train.settings import FOLDER, load_settings
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start


def plugin_for(learner: StageModel) -> FullyShardedDataParallelPlugin:
    """accelerate's plugin as `fsdp.yaml` sets it, with the model's layers found."""
    config = load_config_from_file(str(FOLDER / "fsdp.yaml")).fsdp_config
    plugin = FullyShardedDataParallelPlugin(
        auto_wrap_policy=config["fsdp_auto_wrap_policy"],
        transformer_cls_names_to_wrap=config.get("fsdp_transformer_layer_cls_to_wrap"),
        use_orig_params=config["fsdp_use_orig_params"],
    )
    plugin.set_auto_wrap_policy(learner)
    return plugin


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_layers_of_each_preset_are_the_units(preset, stage):
    with torch.device("meta"):
        model = UrecaForConditionalGeneration(preset_config(preset))
        learner = StageModel(freeze_for_stage(model, load_settings(preset, stage)))
    units = plugin_for(learner).auto_wrap_policy.keywords["transformer_layer_cls"]
    layers = model.model.vision_tower.encoder.layer, model.model.language_model.layers
    assert units == {type(layer) for each in layers for layer in each}


def shard_and_compare(rank: int, port: int, base: str, stage: int, out: str) -> None:
    """One of two processes: loss and norm of the gradients, of the whole model and sharded."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    settings = small(Path(base), stage, lora_dropout=0.0)
    model, processor = load_start(settings)
    learner = StageModel(freeze_for_stage(model, settings))
    index = open_index(str(SCENES), 3, progress=False)
    groups = RegionCaptionDataset(index, processor, settings)
    batch = RegionCollator(processor, grouped=True)([groups[0], groups[1]])
    whole = learner(**batch)
    whole.backward()
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), 1e9)
    learner.zero_grad()
    sharded = FullyShardedDataParallel(
        learner,
        auto_wrap_policy=plugin_for(learner).auto_wrap_policy,
        use_orig_params=True,
        device_id=torch.device("cpu"),
    )
    loss = sharded(**batch)
    loss.backward()
    values = [whole, loss, norm, sharded.clip_grad_norm_(1e9)]
    units = sum(isinstance(each, FullyShardedDataParallel) for each in sharded.modules())
    content = [*(float(value.detach()) for value in values), units]
    Path(out, f"{rank}.json").write_text(json.dumps(content))
    dist.destroy_process_group()


@pytest.mark.parametrize("stage", [1, 2])
def test_sharded_layers_give_the_loss_and_the_gradients_of_the_whole_model(tmp_path, stage):
    base = write_base(tmp_path / "base")
    args = (free_port(), str(base), stage, str(tmp_path))
    multiprocessing.spawn(shard_and_compare, args, nprocs=2)
    for rank in range(2):
        whole, loss, norm, sharded_norm, units = json.loads((tmp_path / f"{rank}.json").read_text())
        assert loss == pytest.approx(whole, rel=1e-6)
        assert sharded_norm == pytest.approx(norm, rel=1e-5)
        assert units == 1 + 2 + 2  # the rest, and two layers of each transformer
