"""`ureca serve`: captions over HTTP, and a web page."""

from __future__ import annotations

import os

import typer

from ureca_lib.devices import DEVICE_HELP

_LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    checkpoint: str | None = typer.Argument(
        None, help="Folder of a URECA checkpoint, or tiny; without one see --annotator."
    ),
    annotator: str | None = typer.Option(
        None, help="attributes (needs no model), openai or transformers, instead."
    ),
    model: str | None = typer.Option(None, help="The annotator's model."),
    base_url: str | None = typer.Option(None, help="The annotator's server."),
    sam: str | None = typer.Option(
        None, help="SAM checkpoint that finds regions; default: superpixels."
    ),
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(8000, help="Port to listen on.", min=1, max=65535),
    key_env: str | None = typer.Option(
        None, help="Environment variable with the key that requests must show."
    ),
    max_megapixels: float = typer.Option(50, help="Largest photo.", min=0.01),
    max_waiting: int = typer.Option(64, help="Most requests that wait.", min=1),
    timeout: float = typer.Option(300, help="Most seconds per request.", min=1),
    device: str | None = typer.Option(None, help=DEVICE_HELP),
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
