"""The web application of `ureca serve`.

    POST /v1/chat/completions    OpenAI's protocol; the region is the picture's alpha channel
                                 (Describe Anything's convention), or `region` in the request
    POST /v1/regions             the captions of many regions of one photo
    GET  /v1/models              the model that is served
    GET  /                       the web page

Photos come inside the request, as data URLs: no address is fetched and no file of this machine is
read. One thread captions; requests about the same photo that wait together are captioned together.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from PIL import Image
from pydantic import BaseModel, Field

from ureca_lib.captioning import CaptionRow, PhotoCaptioner, PhotoCaptions
from ureca_lib.regions import Region, RegionError, RegionImage
from ureca_lib.regions.photo import decode
from ureca_lib.regions.sa1b import annotation_from

_WHOLE = "whole"  # id of the region of a picture without one
Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the server.

    Attributes:
        key: that requests must show as a bearer token; None asks for none.
        max_body: bytes of a request.
        max_pixels: of a photo.
        max_waiting: requests that wait; more are refused with status 503.
        timeout: seconds that a request may take, waiting included.
        photos: segmented photos that are kept for the next request.
    """

    key: str | None = field(default=None, repr=False)
    max_body: int = 48 << 20
    max_pixels: int = 50_000_000
    max_waiting: int = 64
    timeout: float = 300.0
    photos: int = 8


class Prompt(BaseModel):
    """A region of a picture: one of the three."""

    rle: dict[str, Any] | None = Field(None, description="COCO's run-length encoding")
    box: Box | None = Field(None, description="x, y, width, height in pixels")
    point: Point | None = Field(None, description="x, y in pixels")


class ChatRequest(BaseModel):
    """The fields of a chat completion that are read; the others are ignored."""

    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    region: Prompt | None = Field(None, description="the region; None takes the alpha channel")


class RegionsRequest(BaseModel):
    """Request for the captions of a photo's regions; without masks, points and boxes, of all."""

    image: str = Field(description="the photo, as a data URL")
    masks: list[dict[str, Any]] | None = Field(
        None, description='each {"segmentation": RLE or polygons, "id": ..., "name": ...}'
    )
    points: list[Point] = Field(default_factory=list, max_length=256)
    boxes: list[Box] = Field(default_factory=list, max_length=256)
    check: bool = Field(True, description="look for look-alikes, and test if captions are unique")


@dataclass(eq=False)
class CaptionJob:
    """A request that waits for its captions."""

    photo: np.ndarray  # (H, W, 3) uint8
    digest: str  # of the photo
    masks: list[Region] | None = None  # None: the regions of the photo are found
    points: list[Point] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    check: bool = False
    result: PhotoCaptions | Exception | None = None


class CaptionService:
    """Captions photos in one thread, for many requests.

    Args:
        captioner: a checkpoint or an annotator.
        settings: limits.
    """

    def __init__(self, captioner: PhotoCaptioner, settings: ServerSettings):
        self.captioner, self.settings = captioner, settings
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="captions")
        self._waiting: list[CaptionJob] = []
        self._lock = threading.Lock()  # of that list: requests join and leave it in the event loop
        self._photos: OrderedDict[str, RegionImage] = OrderedDict()

    async def caption(self, job: CaptionJob) -> PhotoCaptions:
        """Wait for the captions of a request.

        Raises:
            HTTPException: too many requests wait (503), or the time is over (504).
            ValueError: the captioner refuses the request.
        """
        if len(self._waiting) >= self.settings.max_waiting:
            raise HTTPException(503, "too many requests are waiting", {"Retry-After": "2"})
        self._waiting.append(job)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.settings.timeout):
                await loop.run_in_executor(self._pool, self._run, job)
        except TimeoutError:
            raise HTTPException(504, f"no caption in {self.settings.timeout:g} s") from None
        finally:
            with self._lock:
                if job in self._waiting:  # else it is done, or was done together with another
                    self._waiting.remove(job)
        if isinstance(job.result, PhotoCaptions):
            return job.result
        raise job.result or HTTPException(504, "the request was given up")

    def _run(self, job: CaptionJob) -> None:
        """Caption a job, and those with masks of the same photo that wait with it."""
        with self._lock:
            if job not in self._waiting:  # done with another, or given up
                return
            together = [job]
            if job.masks and not job.check:
                alike = [other for other in self._waiting if other.masks and not other.check]
                together = [other for other in alike if other.digest == job.digest]
            for other in together:
                self._waiting.remove(other)
        try:
            for other, captions in zip(together, self._captions(together), strict=True):
                other.result = captions
        except Exception as error:
            for other in together:
                other.result = error

    def _captions(self, jobs: list[CaptionJob]) -> list[PhotoCaptions]:
        job, captioner = jobs[0], self.captioner
        # requests are independent, even those about one photo that are captioned in one call
        captioner.check, captioner.together = job.check, False
        if job.masks is None:
            regions = self._segmented(job)
            return [captioner.caption(job.photo, regions, job.points, job.boxes)]
        masks = {(place, r.id): r for place, one in enumerate(jobs) for r in one.masks or ()}
        renamed = [Region(str(n), r.rle, name=r.name) for n, r in enumerate(masks.values())]
        image = _image_of(job.photo, renamed)
        rows = {row.region_id: row for row in captioner.caption(job.photo, image)}
        found: list[list[CaptionRow]] = [[] for _ in jobs]
        for number, ((place, _), region) in enumerate(masks.items()):
            if row := rows.get(str(number)):
                found[place].append(_renamed(row, region, len(found[place]) + 1))
        return [
            PhotoCaptions(_image_of(job.photo, one.masks or []), tuple(part), "photo", True)
            for one, part in zip(jobs, found, strict=True)
        ]

    def _segmented(self, job: CaptionJob) -> RegionImage:
        """The regions of a photo, from the latest photos or found anew."""
        if job.digest not in self._photos:
            self._photos[job.digest] = self.captioner.segment(job.photo)
            while len(self._photos) > self.settings.photos:
                self._photos.popitem(last=False)
        self._photos.move_to_end(job.digest)
        return self._photos[job.digest]


def _image_of(photo: np.ndarray, regions: list[Region]) -> RegionImage:
    return RegionImage(regions, photo.shape[1], photo.shape[0], photo, file_name="photo")


def _renamed(row: CaptionRow, region: Region, number: int) -> CaptionRow:
    return CaptionRow(number, region, row.text, None, (), (), row.score)


def make_app(captioner: PhotoCaptioner, settings: ServerSettings | None = None) -> FastAPI:
    """Make the web application.

    Args:
        captioner: a checkpoint or an annotator; its `made_by` names the model.
        settings: limits.
    """
    limits = settings or ServerSettings()
    service = CaptionService(captioner, limits)
    app = FastAPI(title="URECA", docs_url=None, redoc_url=None, openapi_url=None)
    guarded = [Depends(_key_check(limits.key))]

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return _error(400, f"{place or 'the request'}: {first['msg']}")

    # RegionError and CheckpointError are ValueErrors: what the request asks for cannot be done
    @app.exception_handler(ValueError)
    async def unfit(_: Request, error: ValueError) -> JSONResponse:
        return _error(400, str(error))

    @app.middleware("http")
    async def bounded(request: Request, call_next: Any) -> Any:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limits.max_body:
                return _error(413, f"a request has at most {limits.max_body:,} bytes")
        request._body = bytes(body)
        return await call_next(request)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/v1/models", dependencies=guarded)
    async def models() -> dict[str, Any]:
        model = {"id": "ureca", "object": "model", "created": 0, "owned_by": captioner.made_by}
        return {"object": "list", "data": [model]}

    @app.post("/v1/regions", dependencies=guarded)
    async def regions(asked: RegionsRequest) -> dict[str, Any]:
        photo, digest, _ = await asyncio.to_thread(read_photo, asked.image, limits.max_pixels)
        masks = None
        if asked.masks is not None:
            if asked.points or asked.boxes:
                raise ValueError("a request has masks, or points and boxes")
            masks = [_region(mask, n, photo) for n, mask in enumerate(asked.masks, start=1)]
        job = CaptionJob(photo, digest, masks, asked.points, asked.boxes, asked.check)
        captions = await service.caption(job)
        size = {"width": photo.shape[1], "height": photo.shape[0]}
        return {
            "image": size,
            "made_by": captioner.made_by,
            "captions": [_shown(row) for row in captions],
            "left_out": list(captions.left_out),
        }

    @app.post("/v1/chat/completions", dependencies=guarded)
    async def chat(asked: ChatRequest) -> Any:
        picture = _picture(asked.messages)
        photo, digest, alpha = await asyncio.to_thread(read_photo, picture, limits.max_pixels)
        prompt = asked.region or Prompt()
        job = CaptionJob(photo, digest)
        if prompt.point is not None or prompt.box is not None:
            job.points = [] if prompt.point is None else [prompt.point]
            job.boxes = [] if prompt.box is None else [prompt.box]
        elif prompt.rle is not None:
            job.masks = [_region({"segmentation": prompt.rle}, 1, photo)]
        else:
            inside = np.ones(photo.shape[:2], bool) if alpha is None else alpha
            job.masks = [Region.from_mask(_WHOLE, inside)]
        captions = await service.caption(job)
        text = captions[0].text if len(captions) else ""
        reply = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.model or "ureca",
        }
        if asked.stream:
            return StreamingResponse(_chunks(reply, text), media_type="text/event-stream")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        words = len(text.split())
        usage = {"prompt_tokens": 0, "completion_tokens": words, "total_tokens": words}
        return reply | {"object": "chat.completion", "choices": [choice], "usage": usage}

    return app


def _key_check(key: str | None) -> Any:
    async def check(request: Request) -> None:
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not secrets.compare_digest(shown.encode(), key.encode()):
            raise HTTPException(401, "the key is missing or wrong")

    return check


def _error(status: int, message: str, headers: Any = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "code": status}
    return JSONResponse({"error": error}, status, headers)


def _picture(messages: list[dict[str, Any]]) -> str:
    """The data URL of the latest message with a picture; the first one of that message."""
    for message in reversed(messages):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "image_url":
                url = part.get("image_url")
                return str(url.get("url", "")) if isinstance(url, dict) else str(url)
    raise ValueError("no message has a picture (a part of type image_url)")


def read_photo(url: str, max_pixels: int) -> tuple[np.ndarray, str, np.ndarray | None]:
    """A photo from a data URL.

    Args:
        url: `data:image/...;base64,...`.
        max_pixels: of the photo.

    Returns:
        (H, W, 3) uint8; a digest of the pixels; and (H, W) bool, the region in the alpha channel,
        or None if the picture is opaque.

    Raises:
        ValueError: another address, or no picture (`RegionError`).
    """
    head, _, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise ValueError("a picture is a data URL in base64: no address is fetched")
    try:
        file = io.BytesIO(base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise ValueError(f"the picture is no base64 ({error})") from None

    def read(image: Image.Image) -> np.ndarray:
        transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        return np.array(image.convert("RGBA" if transparent else "RGB"))

    try:
        opened = Image.open(file)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture cannot be read ({error})") from None
    pixels = decode(opened, read, "photo", max_pixels)
    photo, alpha = np.ascontiguousarray(pixels[..., :3]), None
    if pixels.shape[2] == 4:
        inside = pixels[..., 3] > 0
        if not inside.any():
            raise ValueError("the picture is transparent everywhere: it shows no region")
        alpha = None if inside.all() else inside
    return photo, hashlib.sha256(photo).hexdigest(), alpha


def _region(mask: dict[str, Any], number: int, photo: np.ndarray) -> Region:
    """A region of a request: RLE or polygons of the photo's size."""
    try:
        segmentation, height, width = mask["segmentation"], *photo.shape[:2]
        region_id, name = mask.get("id", number), mask.get("name")
        if isinstance(segmentation, list):
            return Region.from_polygons(region_id, segmentation, height, width, name)
        region = Region(region_id, segmentation, name=name)
        region.check_size(height, width)
    except KeyError:
        raise ValueError(f"mask {number} has no segmentation") from None
    except RegionError as error:
        raise ValueError(f"mask {number}: {error}") from None
    return region


def _shown(row: CaptionRow) -> dict[str, Any]:
    annotation = annotation_from(row.region)
    return {
        "number": row.number,
        "region_id": row.region_id,
        "caption": row.text,
        "unique": row.unique,
        "confused_with": list(row.confused_with),
        "look_alikes": list(row.look_alikes),
        "score": row.score,
        "bbox": annotation["bbox"],
        "segmentation": annotation["segmentation"],
    }


def _chunks(reply: dict[str, Any], text: str) -> Iterator[str]:
    """Server-sent events of a caption, word by word."""
    words = [f"{' ' if place else ''}{word}" for place, word in enumerate(text.split())]
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        chunk = reply | {"object": "chat.completion.chunk", "choices": [choice]}
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"
