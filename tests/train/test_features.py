"""The feature cache: what is kept, what goes, kills and two processes."""

from __future__ import annotations

import threading

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from ureca_lib.processor import UrecaProcessor
from ureca_lib.train.features import FeatureCache, vision_fingerprint


def features(value: float, size: int = 64) -> torch.Tensor:
    return torch.full((1, size, 4), float(value))


def key(number: int) -> str:
    return f"{number:064x}"


def test_what_is_put_is_got_also_by_another_process(tmp_path):
    stored = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    FeatureCache(tmp_path).put(key(1), stored)
    found = FeatureCache(tmp_path).get(key(1))
    assert found.dtype == torch.bfloat16 and torch.equal(found, stored)
    assert FeatureCache(tmp_path).get(key(2)) is None


def test_the_folder_stays_bounded(tmp_path):
    cache = FeatureCache(tmp_path, max_bytes=3000, memory_bytes=0)
    for number in range(5):  # 1024 bytes of numbers each
        cache.put(key(number), features(number))
    found = [cache.get(key(number)) is not None for number in range(5)]
    assert found == [True, True, False, False, False]
    again = FeatureCache(tmp_path, max_bytes=3000, memory_bytes=0)  # counts what is there
    again.put(key(7), features(7))
    assert again.get(key(7)) is None and torch.equal(again.get(key(1)), features(1))


def test_memory_is_bounded_too(tmp_path):
    cache = FeatureCache(None, memory_bytes=2100)
    for number in range(3):
        cache.put(key(number), features(number))
    assert torch.equal(cache.get(key(0)), features(0))
    assert cache.get(key(2)) is None


def test_a_file_cut_off_is_made_again_and_a_temporary_one_is_not_read(tmp_path):
    FeatureCache(tmp_path).put(key(1), features(1))
    path = tmp_path / "00" / f"{key(1)}.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    (path.parent / f".{key(2)}.safetensors.77").write_bytes(b"half")
    cache = FeatureCache(tmp_path)
    assert cache.get(key(1)) is None
    assert cache.get(key(2)) is None
    cache.put(key(1), features(1))
    assert torch.equal(FeatureCache(tmp_path).get(key(1)), features(1))


def test_a_folder_that_cannot_be_written_leaves_memory(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("ureca_lib.train.features.save_file", refuse)
    cache = FeatureCache(tmp_path)
    with pytest.warns(UserWarning, match="cannot be written .no space left"):
        cache.put(key(1), features(1))
    assert torch.equal(cache.get(key(1)), features(1))
    assert FeatureCache(tmp_path).get(key(1)) is None and not list(tmp_path.glob("*/*"))


def test_several_writers_share_a_folder(tmp_path):
    errors = []

    def work(first: int) -> None:
        try:
            cache = FeatureCache(tmp_path, memory_bytes=0)
            for number in range(40):
                cache.put(key(first + number % 20), features(first + number % 20))
                found = cache.get(key((first + number * 7) % 40))
                assert found is None or found.unique().numel() == 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 40


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="exists"):
        FeatureCache(tmp_path / "file")


def test_keys_tell_images_and_weights_apart():
    one, other = (FeatureCache(None, fingerprint=weights) for weights in "ab")
    assert len({one.key("one"), one.key("two"), other.key("one")}) == 3
    assert one.key("one") == FeatureCache(None, fingerprint="a").key("one")


def test_the_fingerprint_is_of_what_makes_features_and_of_nothing_else():
    model = tiny_model()
    processor = UrecaProcessor.from_config(model.config, tiny_tokenizer())
    first = vision_fingerprint(model, processor)
    with torch.no_grad():
        model.model.mask_encoder.conv1.weight.add_(1)
        model.lm_head.weight.add_(1)
    assert vision_fingerprint(model, processor) == first
    processor.max_tiles_train = 4
    assert vision_fingerprint(model, processor) != first
    processor.max_tiles_train = model.config.max_tiles_train
    processor.use_thumbnail = False
    assert vision_fingerprint(model, processor) != first
    processor.use_thumbnail = True
    with torch.no_grad():
        next(model.model.multi_modal_projector.parameters())[0] += 1e-3
    assert vision_fingerprint(model, processor) != first
