"""Masks as other tools write them: each format gives the regions that were drawn."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ureca_lib.regions import (
    AnnotationFormatError,
    FileMissingError,
    ImageUnreadableError,
    load_image,
    load_regions,
    masked_photos,
    photo,
)
from ureca_lib.regions.formats import FORMATS, brush_values, format_table

HEIGHT, WIDTH = 64, 96
# x, y, width, height and label
BOXES = {"block": (8, 10, 30, 40), "knob": (14, 16, 10, 10), "ball": (55, 18, 30, 30)}


def drawn() -> list[np.ndarray]:
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    for mask, (x, y, w, h) in zip(masks, BOXES.values(), strict=True):
        mask[y : y + h, x : x + w] = True
    return list(masks)


def rle_of(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def corners(box: tuple[int, int, int, int]) -> list[list[int]]:
    x, y, w, h = box
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def sam_list() -> list:
    return [
        {"segmentation": rle_of(m), "area": int(m.sum()), "bbox": [0, 0, 1, 1]} for m in drawn()
    ]


def result_list() -> list:
    masks = [rle_of(mask) for mask in drawn()]
    return [{"image_id": 7, "category_id": 1, "score": 0.9, "segmentation": m} for m in masks]


def labelme() -> dict:
    block, knob, ball = BOXES.values()
    inside = np.ones((30, 30), np.uint8) * 255
    file = io.BytesIO()
    Image.fromarray(inside).save(file, "PNG")
    mask = base64.b64encode(file.getvalue()).decode()
    x, y, w, h = ball
    shapes = [
        {"label": "block", "points": corners(block), "shape_type": "polygon"},
        {
            "label": "knob",
            "points": [corners(knob)[0], corners(knob)[2]],
            "shape_type": "rectangle",
        },
        {"label": "ball", "points": [[x, y], [x + w, y + h]], "shape_type": "mask", "mask": mask},
    ]
    return {"shapes": shapes, "imagePath": "p.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}


def label_studio() -> list:
    def result(name: str, kind: str, value: dict) -> dict:
        size = {"original_width": WIDTH, "original_height": HEIGHT}
        return size | {"id": name, "type": kind, "value": value | {kind: [name]}}

    scale = np.array([100 / WIDTH, 100 / HEIGHT])
    block, knob, ball = BOXES.values()
    x, y, w, h = ball
    area = {"x": x * scale[0], "y": y * scale[1], "width": w * scale[0], "height": h * scale[1]}
    results = [
        result("block", "polygonlabels", {"points": (np.array(corners(block)) * scale).tolist()}),
        result("knob", "polygonlabels", {"points": (np.array(corners(knob)) * scale).tolist()}),
        result("ball", "rectanglelabels", area),
    ]
    return [{"data": {"image": "/data/upload/1/p.png"}, "annotations": [{"result": results}]}]


def cvat() -> str:
    block, knob, ball = BOXES.values()
    points = ";".join(f"{x},{y}" for x, y in corners(block))
    left, top, w, h = knob
    box = {"xtl": ball[0], "ytl": ball[1], "xbr": ball[0] + ball[2], "ybr": ball[1] + ball[3]}
    ends = " ".join(f'{name}="{value}"' for name, value in box.items())
    return (
        f'<annotations><image id="0" name="p.png" width="{WIDTH}" height="{HEIGHT}">'
        f'<polygon label="block" points="{points}"/>'
        f'<mask label="knob" rle="0, {w * h}" left="{left}" top="{top}" width="{w}" height="{h}"/>'
        f'<box label="ball" {ends}/><points label="dot" points="1,1"/></image></annotations>'
    )


def write_panoptic(folder: Path) -> Path:
    ids = {"block": 300, "knob": 70000, "ball": 5}
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    masks = dict(zip(BOXES, drawn(), strict=True))
    for name, number in ids.items():  # the knob is on the block
        picture[masks[name]] = number % 256, number // 256 % 256, number // 65536
    (folder / "panoptic").mkdir()
    Image.fromarray(picture).save(folder / "panoptic" / "map.png")
    segments = [{"id": n, "category_id": place} for place, n in enumerate(ids.values(), start=1)]
    annotation = {"image_id": 1, "file_name": "map.png", "segments_info": segments}
    image = {"id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "p.png"}
    names = [{"id": place, "name": name} for place, name in enumerate(BOXES, start=1)]
    content = {"images": [image], "annotations": [annotation], "categories": names}
    path = folder / "panoptic.json"
    path.write_text(json.dumps(content))
    return path


def write(folder: Path, kind: str) -> Path:
    """A file of masks in a format; the photo `p.png` beside it."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "p.png")
    masks = dict(zip(BOXES, drawn(), strict=True))
    if kind == "panoptic":
        return write_panoptic(folder)
    path = folder / {"npy": "m.npy", "npz": "m.npz", "cvat": "m.xml"}.get(kind, "m.json")
    if kind == "npy":
        np.save(path, np.stack(list(masks.values())))
    elif kind == "npz":
        np.savez(path, **masks)
    elif kind == "cvat":
        path.write_text(cvat())
    else:
        made = {"sam": sam_list, "results": result_list, "labelme": labelme}
        path.write_text(json.dumps({**made, "label studio": label_studio}[kind]()))
    return path


KINDS = ("sam", "results", "labelme", "label studio", "cvat", "panoptic", "npy", "npz")
WITHOUT_NAMES = ("sam", "results", "npy")


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_gives_the_regions_that_were_drawn(tmp_path, kind):
    path = write(tmp_path, kind)
    regions = load_regions(path, tmp_path / "p.png")
    expected = drawn()
    if kind == "panoptic":  # a pixel has one segment
        expected[0] = expected[0] & ~expected[1]
    assert len(regions) == 3 and regions.image is not None
    for region, mask in zip(regions, expected, strict=True):
        assert np.array_equal(region.mask, mask), region
    names = [region.name for region in regions]
    assert names == ([None] * 3 if kind in WITHOUT_NAMES else list(BOXES))


def test_shapes_of_one_group_are_one_region(tmp_path):
    content = labelme()
    content["shapes"] = [
        {"label": "pair", "points": corners(box), "shape_type": "polygon", "group_id": 4}
        for box in (BOXES["block"], BOXES["ball"])
    ]
    content["shapes"].append(
        {"label": "disk", "points": [[50, 30], [50, 40]], "shape_type": "circle", "group_id": None}
    )
    (tmp_path / "m.json").write_text(json.dumps(content))
    pair, disk = load_regions(tmp_path / "m.json").regions
    block, _, ball = drawn()
    assert np.array_equal(pair.mask, block | ball)
    assert disk.area == pytest.approx(np.pi * 100, rel=0.05)


def test_a_turned_rectangle_and_an_ellipse_of_label_studio(tmp_path):
    content = label_studio()
    square = {"x": 50, "y": 25, "width": 20 / WIDTH * 100, "height": 20 / HEIGHT * 100}
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    content[0]["annotations"][0]["result"] = [
        size | {"id": "a", "type": "rectanglelabels", "value": square | {"rotation": 45}},
        size
        | {
            "id": "b",
            "type": "ellipselabels",
            "value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 15, "rotation": 0},
        },
    ]
    (tmp_path / "m.json").write_text(json.dumps(content))
    turned, ellipse = load_regions(tmp_path / "m.json").regions
    # a square of 20 pixels turned by 45 degrees around its upper left corner hangs below it
    x, y, columns, rows = turned.pixel_box
    assert turned.area == pytest.approx(400, rel=0.05)
    assert (x + columns / 2, y) == (pytest.approx(48, abs=1), pytest.approx(16, abs=1))
    assert (columns, rows) == (pytest.approx(28, abs=2), pytest.approx(28, abs=2))
    assert ellipse.area == pytest.approx(np.pi * 9.6 * 9.6, rel=0.05)


# what Label Studio's own encoder makes of a mask of 8 x 11 pixels
BRUSH = bytes.fromhex("00000160391bfe6300c27ff85c0309ffe1700c27ff85c0309ffe630000")


def test_brush_strokes_are_decoded(tmp_path):
    values = brush_values(BRUSH).reshape(8, 11, 4)[..., 3] > 0
    expected = np.zeros((8, 11), bool)
    expected[2:6, 3:8] = True
    assert np.array_equal(values, expected)
    with pytest.raises(ValueError, match="end early"):
        brush_values(BRUSH[:10])
    content = label_studio()
    value = {"format": "rle", "rle": list(BRUSH), "brushlabels": ["blob"]}
    stroke = {"original_width": 11, "original_height": 8, "type": "brushlabels", "value": value}
    content[0]["annotations"][0]["result"] = [stroke]
    (tmp_path / "m.json").write_text(json.dumps(content))
    (region,) = load_regions(tmp_path / "m.json").regions
    assert region.name == "blob" and np.array_equal(region.mask, expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "holds a list"),
        ([{"segmentation": "x"}], "says how large"),
        ([{"segmentation": rle_of(drawn()[0])}, 3], "no object"),
        ({"shapes": [3], "imageWidth": 9, "imageHeight": 9}, "shape 0: it is no object"),
        ({"shapes": [{"points": [[1]]}], "imageWidth": 9, "imageHeight": 9}, "shape 0"),
        (
            {"shapes": [{"shape_type": "line", "points": [[1, 1], [2, 2]]}], "imageWidth": 9},
            "has no area",
        ),
        ([{"data": {}, "annotations": [{}]}], "task 0"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path, content, says):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationFormatError, match=says) as caught:
        load_regions(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["<a", "<annotations><image/></annotations>", ""])
def test_faulty_xml_is_named(tmp_path, text):
    path = tmp_path / "m.xml"
    path.write_text(text)
    with pytest.raises(AnnotationFormatError, match=r"m\.xml"):
        load_regions(path)


def test_a_missing_map_and_a_pickled_array_are_named(tmp_path):
    path = write(tmp_path, "panoptic")
    (tmp_path / "panoptic" / "map.png").unlink()
    with pytest.raises(FileMissingError, match=r"map\.png"):
        load_regions(path)
    np.save(tmp_path / "m.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(AnnotationFormatError, match=r"m\.npy: the file holds no arrays"):
        load_regions(tmp_path / "m.npy")


def test_every_format_says_what_it_is():
    assert len({known.name for known in FORMATS}) == len(FORMATS)
    assert all(known.files for known in FORMATS)


def test_boxes_are_read_when_asked_for(tmp_path):
    box = [8, 10, 30, 40]
    annotations = [{"id": 1, "image_id": 1, "segmentation": [], "bbox": box, "area": 1200}]
    images = [{"id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "p.png"}]
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    with pytest.raises(AnnotationFormatError, match="a box and no mask"):
        load_regions(path)
    (region,) = load_regions(path, boxes=True).regions
    assert np.array_equal(region.mask, drawn()[0])


@pytest.mark.parametrize("name", ["p.json", "results.json"])
def test_boxes_of_a_results_list_have_the_size_of_the_photo(tmp_path, name):
    boxes = [{"image_id": 7, "category_id": 1, "score": 1, "bbox": list(b)} for b in BOXES.values()]
    path, photo = tmp_path / name, tmp_path / "p.png"
    path.write_text(json.dumps(boxes))
    with pytest.raises(AnnotationFormatError, match="no photo is given"):
        load_regions(path, boxes=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(photo)
    with pytest.raises(AnnotationFormatError, match="a box and no mask"):
        load_regions(path, photo)
    regions = load_regions(path, photo, boxes=True)
    assert [np.array_equal(r.mask, m) for r, m in zip(regions, drawn(), strict=True)] == [True] * 3
    if name == "p.json":
        assert len(load_regions(path, boxes=True)) == 3  # the photo of its name


def test_a_name_that_is_not_there_is_answered_with_the_nearest(tmp_path):
    sizes = {"width": 9, "height": 9}
    images = [{"id": n, "file_name": f"img_{n}.PNG"} | sizes for n in (1, 2)]
    annotation = {"id": 1, "image_id": 2, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"images": images, "annotations": [annotation]}))
    Image.new("RGB", (9, 9)).save(tmp_path / "img_2.png")
    assert len(load_regions(path, tmp_path / "img_2.png")) == 1  # but for the case
    with pytest.raises(AnnotationFormatError, match=r"the nearest: img_2\.PNG"):
        load_regions(path, tmp_path / "img_22.png")


@pytest.mark.parametrize(("suffix", "package"), [("avif", "PIL"), ("heic", "pillow_heif")])
def test_photos_of_phones_are_read(tmp_path, suffix, package):
    if suffix == "heic":
        pytest.importorskip(package, reason="HEIC needs the extra [heic]").register_heif_opener()
    path = tmp_path / f"p.{suffix}"
    Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 30)).save(path)
    pixels = load_image(path)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert abs(pixels.mean((0, 1)) - (200, 30, 30)).max() < 12


def test_heic_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(photo, "_registered_heic", lambda: False)
    path = tmp_path / "p.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic rubbish")
    with pytest.raises(ImageUnreadableError, match=r"ureca-lib\[heic\]"):
        load_image(path)


def test_the_table_of_formats_is_the_one_in_the_researchers_readme():
    readme = Path(__file__).parents[2] / "notebooks" / "README.md"
    assert format_table() in readme.read_text(encoding="utf-8")


def test_a_second_file_of_masks_for_one_photo_is_named(tmp_path):
    write(tmp_path, "labelme").rename(tmp_path / "p.json")
    write(tmp_path, "npy").rename(tmp_path / "p.npy")
    with pytest.warns(UserWarning, match=r"p\.npy is left out: the masks of 'p\.png' .* 'p\.json'"):
        (found,) = masked_photos(tmp_path)
    assert found.path.name == "p.json"
