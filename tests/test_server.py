"""`ureca serve`: OpenAI's protocol, many regions at once, limits, and a load with bad clients."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from ureca_lib.annotate.annotators import make_annotator
from ureca_lib.annotate.run import annotate_images
from ureca_lib.captioning import TINY, PhotoCaptioner, PhotoCaptions
from ureca_lib.regions import Region, RegionImage, load_regions, save_sa1b

pytest.importorskip("fastapi", reason="the server needs the extra [serve]")
uvicorn = pytest.importorskip("uvicorn", reason="the server needs the extra [serve]")
from fastapi import HTTPException  # noqa: E402

from ureca_lib.server.app import (  # noqa: E402
    CaptionJob,
    CaptionService,
    ServerSettings,
    make_app,
)

SAMPLES = Path(__file__).parents[1] / "data_samples" / "photos"
LIMITS = ServerSettings(max_body=4 << 20, max_pixels=4_000_000, max_waiting=64)


def data_url(image: Image.Image, kind: str = "png") -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def small_image() -> RegionImage:
    """A red and a blue square on gray."""
    pixels = np.full((64, 96, 3), 120, np.uint8)
    masks = np.zeros((2, 64, 96), bool)
    masks[0, 10:40, 8:38] = masks[1, 18:48, 55:85] = True
    pixels[masks[0]], pixels[masks[1]] = (220, 30, 30), (30, 30, 220)
    regions = [Region.from_mask(n, mask) for n, mask in enumerate(masks, start=1)]
    return RegionImage(regions, 96, 64, pixels, file_name="squares.png")


def with_alpha(image: RegionImage, region_id: int) -> Image.Image:
    alpha = image[region_id].mask.astype(np.uint8) * 255
    return Image.fromarray(np.dstack([image.pixels, alpha]))


def chat_body(url: str, **more: object) -> dict[str, object]:
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "ureca", "messages": [{"role": "user", "content": content}], **more}


class Running:
    """A server in a thread of this process."""

    def __init__(self, captioner: PhotoCaptioner, settings: ServerSettings):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        app = make_app(captioner, settings)
        config = uvicorn.Config(app, "127.0.0.1", self.port, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.port}"
        while not self.server.started:
            time.sleep(0.02)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture(scope="module")
def embedded() -> Iterator[Running]:
    running = Running(PhotoCaptioner(), LIMITS)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def tiny() -> Iterator[Running]:
    running = Running(PhotoCaptioner(TINY, photos=2), LIMITS)
    yield running
    running.stop()


def test_regions_of_a_request_are_captioned_as_the_library_does(embedded):
    image = small_image()
    masks = [{"id": f"m{r.id}", "segmentation": _plain(r.rle)} for r in image]
    body = {"image": data_url(Image.fromarray(image.pixels)), "masks": masks, "check": False}
    reply = httpx.post(f"{embedded.url}/v1/regions", json=body).json()
    expected = [row.text for row in PhotoCaptioner().caption(image.pixels, image)]
    assert [row["caption"] for row in reply["captions"]] == expected
    assert [row["region_id"] for row in reply["captions"]] == ["m1", "m2"]
    assert reply["image"] == {"width": 96, "height": 64}


def test_regions_of_a_request_do_not_change_each_others_captions(tiny):
    photo = load_regions(SAMPLES / "coffee.json", SAMPLES / "coffee.png")
    masks = [{"id": name, "segmentation": _plain(photo.regions[2].rle)} for name in ("a", "b")]
    body = {"image": data_url(Image.fromarray(photo.pixels)), "masks": masks, "check": False}
    one, two = httpx.post(f"{tiny.url}/v1/regions", json=body).json()["captions"]
    assert one["caption"] == two["caption"]


def _plain(rle: dict) -> dict:
    return rle | {"counts": rle["counts"].decode()}


def test_all_regions_points_and_boxes(embedded):
    image = data_url(Image.fromarray(small_image().pixels))
    whole = httpx.post(f"{embedded.url}/v1/regions", json={"image": image}).json()["captions"]
    assert len(whole) >= 2 and all(row["unique"] is not None for row in whole)
    body = {"image": image, "points": [[20, 20]], "boxes": [[55, 18, 30, 30]]}
    red, blue = httpx.post(f"{embedded.url}/v1/regions", json=body).json()["captions"]
    assert "red" in red["caption"] and "blue" in blue["caption"]


@pytest.mark.parametrize("how", ["alpha", "rle", "stream"])
def test_the_openai_client_gets_the_captions_of_the_model(tiny, how):
    openai = pytest.importorskip("openai")
    photo = load_regions(SAMPLES / "coffee.json", SAMPLES / "coffee.png")
    region = photo.regions[2]
    expected = PhotoCaptioner(TINY)._network.caption(photo.pixels, [region], progress=False)[0].text
    client = openai.OpenAI(api_key="none", base_url=f"{tiny.url}/v1")
    extra = {"region": {"rle": _plain(region.rle)}} if how == "rle" else {}
    shown = with_alpha(photo, region.id) if how != "rle" else Image.fromarray(photo.pixels)
    body = chat_body(data_url(shown))
    reply = client.chat.completions.create(**body, stream=how == "stream", extra_body=extra)
    if how == "stream":
        text = "".join(chunk.choices[0].delta.content or "" for chunk in reply)
    else:
        text = reply.choices[0].message.content
    assert text == expected
    assert client.models.list().data[0].id == "ureca"


def test_requests_of_one_photo_are_captioned_together(tiny):
    photo = load_regions(SAMPLES / "coffee.json", SAMPLES / "coffee.png")
    bodies = [chat_body(data_url(with_alpha(photo, region.id))) for region in photo.regions[:6]]

    def ask(body: dict) -> str:
        reply = httpx.post(f"{tiny.url}/v1/chat/completions", json=body, timeout=120)
        return reply.json()["choices"][0]["message"]["content"]

    alone = [ask(body) for body in bodies]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, bodies)) == alone


def test_our_annotator_asks_it(embedded, tmp_path):
    image = small_image()
    Image.fromarray(image.pixels).save(tmp_path / "squares.png")
    save_sa1b(image, tmp_path / "squares.json", "squares.png")
    annotator = make_annotator("openai", "ureca", f"{embedded.url}/v1", "cpu", None)
    summary = annotate_images(tmp_path, tmp_path / "s.sqlite", annotator, progress=False)
    assert summary.calls and not summary.stopped


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_readmes_request_by_curl(embedded, tmp_path):
    readme = (SAMPLES.parents[1] / "README.md").read_text(encoding="utf-8")
    (script,) = [text for text in re.findall(r"```bash\n(.*?)```", readme, re.S) if "curl" in text]
    Image.fromarray(small_image().pixels).save(tmp_path / "photo.jpg")
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{embedded.port}")
    out = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(out.stdout)["captions"]


BOMB = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"not a picture").decode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"image": "http://example.org/a.png"}, 400, "no address is fetched"),
        ({"image": "file:///etc/passwd"}, 400, "no address is fetched"),
        ({"image": "data:image/png;base64,@@"}, 400, "no base64"),
        ({"image": f"data:image/png;base64,{BOMB}"}, 400, "cannot be read"),
        ({"image": data_url(Image.new("1", (8000, 8000)))}, 400, "64,000,000 pixels"),
        ({}, 400, "image: Field required"),
        ({"image": data_url(Image.new("RGB", (9, 9))), "points": [[99, 1]]}, 400, "outside"),
        ({"image": data_url(Image.new("RGB", (9, 9))), "masks": [{}]}, 400, "no segmentation"),
        (
            {
                "image": data_url(Image.new("RGB", (9, 9))),
                "masks": [{"segmentation": {"size": [3, 3], "counts": [4, 1, 4]}}],
            },
            400,
            "mask 1: region 1: the mask is 3 x 3",
        ),
        ({"image": "data:" + "A" * (5 << 20)}, 413, "at most"),
    ],
)
def test_what_is_wrong_with_a_request_is_one_clear_answer(embedded, body, status, says):
    reply = httpx.post(f"{embedded.url}/v1/regions", json=body)
    assert reply.status_code == status and says in reply.json()["error"]["message"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"messages": []}', '{"messages": [{}]}'])
def test_rubbish_is_refused(embedded, text):
    headers = {"content-type": "application/json"}
    reply = httpx.post(f"{embedded.url}/v1/chat/completions", content=text, headers=headers)
    assert reply.status_code == 400 and reply.json()["error"]["message"]


def test_a_transparent_picture_shows_no_region(embedded):
    url = data_url(Image.new("RGBA", (9, 9)))
    reply = httpx.post(f"{embedded.url}/v1/chat/completions", json=chat_body(url))
    assert reply.status_code == 400 and "transparent" in reply.json()["error"]["message"]


def test_a_key_is_asked_for_and_shown_nowhere():
    settings = ServerSettings(key="very-secret-key")
    running = Running(PhotoCaptioner(), settings)
    try:
        body = {"image": data_url(Image.fromarray(small_image().pixels))}
        for headers in ({}, {"authorization": "Bearer wrong"}):
            reply = httpx.post(f"{running.url}/v1/regions", json=body, headers=headers)
            assert reply.status_code == 401 and "very-secret" not in reply.text
        good = {"authorization": "Bearer very-secret-key"}
        reply = httpx.post(f"{running.url}/v1/regions", json=body, headers=good)
        assert reply.status_code == 200
        assert httpx.get(f"{running.url}/").status_code == 200  # the page asks for the key
        assert "very-secret" not in repr(settings)
    finally:
        running.stop()


def test_a_full_queue_says_to_come_back():
    class Slow(PhotoCaptioner):
        def caption(self, *arguments: object, **options: object) -> object:
            time.sleep(1.5)
            return super().caption(*arguments, **options)

    running = Running(Slow(), ServerSettings(max_waiting=2, timeout=60))
    body = {"image": data_url(Image.fromarray(small_image().pixels))}
    try:
        with ThreadPoolExecutor(8) as pool:
            ask = [
                pool.submit(httpx.post, f"{running.url}/v1/regions", json=body, timeout=30)
                for _ in range(8)
            ]
            replies = [one.result() for one in ask]
    finally:
        running.stop()
    refused = [reply for reply in replies if reply.status_code == 503]
    assert refused and refused[0].headers["retry-after"]
    assert {reply.status_code for reply in replies} <= {200, 503, 504}
    assert any(reply.status_code == 200 for reply in replies)


def test_a_request_that_times_out_while_its_captions_begin_is_given_up_cleanly():
    image = small_image()

    class Hesitant(list):
        """Time passes between the look into the queue and what follows from it."""

        def __contains__(self, job: object) -> bool:
            found = super().__contains__(job)
            time.sleep(0.4)
            return found

    async def run() -> tuple[BaseException, PhotoCaptions]:
        service = CaptionService(PhotoCaptioner(), ServerSettings(timeout=0.2))
        service._waiting = Hesitant()
        with pytest.raises(HTTPException) as given_up:
            await service.caption(CaptionJob(image.pixels, "one", image.regions))
        service.settings = ServerSettings()
        return given_up.value, await service.caption(CaptionJob(image.pixels, "two", image.regions))

    given_up, later = asyncio.run(run())
    assert given_up.status_code == 504 and len(later) == 2


def test_no_good_request_is_lost_among_bad_clients(embedded):
    image = small_image()
    good = chat_body(data_url(with_alpha(image, 1)))
    bomb = chat_body(data_url(Image.new("1", (10_000, 6_000))))

    def hang_up() -> None:
        text = json.dumps(good).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n"
        with socket.create_connection(("127.0.0.1", embedded.port)) as connection:
            connection.sendall(
                head.encode() + b"Content-Type: application/json\r\n\r\n" + text[:99]
            )

    def ask(number: int) -> int:
        if number % 5 == 1:
            hang_up()
            return 0
        if number % 5 == 2:
            url = f"{embedded.url}/v1/chat/completions"
            return httpx.post(url, content=b"\0rubbish", timeout=60).status_code
        body = bomb if number % 5 == 3 else good
        url = f"{embedded.url}/v1/chat/completions"
        return httpx.post(url, json=body, timeout=60).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, range(200)))
    for number, status in enumerate(statuses):
        assert status == {1: 0, 2: 400, 3: 400}.get(number % 5, 200), number
