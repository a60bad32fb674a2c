"""`ureca serve`: captions over HTTP, and a web page."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ureca_lib.devices import DEVICE_HELP

_LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="Folder of a URECA checkpoint, or tiny; without one see --annotator."),
    ] = None,
    annotator: Annotated[
        str | None,
        typer.Option(help="attributes (needs no model), openai or transformers, instead."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The annotator's model.")] = None,
    base_url: Annotated[str | None, typer.Option(help="The annotator's server.")] = None,
    sam: Annotated[
        str | None, typer.Option(help="SAM checkpoint that finds regions; default: superpixels.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the key that requests must show."),
    ] = None,
    max_megapixels: Annotated[float, typer.Option(help="Largest photo.", min=0.01)] = 50,
    max_waiting: Annotated[int, typer.Option(help="Most requests that wait.", min=1)] = 64,
    timeout: Annotated[float, typer.Option(help="Most seconds per request.", min=1)] = 300,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
) -> None:
    """Serve captions over HTTP: OpenAI's chat completions, /v1/regions, and a page at /.

    The page needs no installation: open it in a browser, drop a photo, click. Example:

    ureca serve tiny --port 8000
    """
    try:
        import uvicorn

        from ureca_lib.server.app import ServerSettings, make_app
    except ImportError as error:
        reason = f'a server needs more packages ({error}): pip install "ureca-lib[serve]"'
        raise ImportError(reason) from None
    from ureca_lib.captioning import PhotoCaptioner

    if (checkpoint is None) == (annotator is None):
        raise ValueError("name a checkpoint, or an --annotator such as attributes")
    key = None if key_env is None else os.environ.get(key_env, "").strip()
    if key == "":
        raise ValueError(f"set the environment variable {key_env} to the key of your choice")
    embedded = annotator == "attributes"  # needs neither a model nor the four stages
    annotator = None if embedded else annotator
    settings = ServerSettings(
        key,
        max_pixels=int(max_megapixels * 1e6),
        max_waiting=max_waiting,
        timeout=timeout,
    )
    captioner = PhotoCaptioner(
        checkpoint or model, annotator, base_url, sam=sam, device=device, photos=settings.photos
    )
    if captioner.note:
        typer.echo(captioner.note, err=True)
    if host not in _LOCAL and key is None:
        typer.echo(f"anybody who reaches {host}:{port} may ask: --key-env sets a key", err=True)
    typer.echo(f"{captioner.made_by}: http://{host}:{port}/", err=True)
    uvicorn.run(make_app(captioner, settings), host=host, port=port, log_level="warning")
