"""Memory and time of captioning a large photo and drawing its figure.

A sample photo and its masks are enlarged to the size of a phone's photo (12 megapixels) and of a
camera's (50). Each row is one process, as a user would start it: with the masks beside the photo,
or with superpixels. The baseline is a process that only reads the photo.

    OMP_NUM_THREADS=1 python tests/benchmarks/memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from record import record
from views import SAMPLE, enlarged

from ureca_lib.regions import load_sa1b

SIDES = {"12 megapixels": 4000, "50 megapixels": 8192}
COMMAND = "OMP_NUM_THREADS=1 python tests/benchmarks/memory.py"
READ = "import sys; from ureca_lib.regions import load_image; load_image(sys.argv[1])"


# a process begins with the memory of the one that starts it, so a small one stands between
MEASURE = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
"""


def measured(*arguments: str) -> tuple[float, float]:
    """Peak of resident memory in GiB, and seconds of processor time, of one Python process."""
    command = [sys.executable, "-c", MEASURE, sys.executable, *arguments]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    kilobytes, seconds = map(float, output.split())
    return kilobytes / 2**20, seconds


def write_photo(folder: Path, side: int) -> Path:
    """The sample's photo, whose longer side gets `side` pixels, with its masks beside it."""
    image = enlarged(load_sa1b(SAMPLE), side)
    photo = folder / "photo.jpg"
    Image.fromarray(image.pixels).save(photo, quality=90)
    annotations = [
        {"id": r.id, "segmentation": r.rle, "name": r.name, "area": r.area, "bbox": r.bbox}
        for r in image.regions
    ]
    size = {"image_id": 1, "width": image.width, "height": image.height, "file_name": photo.name}
    content = {"image": size, "annotations": annotations}
    photo.with_suffix(".json").write_text(json.dumps(content, default=lambda rle: rle.decode()))
    return photo


def main() -> None:
    """Measure and record."""
    rows = [
        "| photo | process | memory, GiB | processor, s |",
        "|---|---|---|---|",
    ]
    start = time.perf_counter()
    for size, side in SIDES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            photo = write_photo(folder, side)
            caption = ["-m", "ureca_lib.cli", "caption", str(photo)]
            caption += ["-o", str(folder / "c.jsonl"), "--figure", str(folder / "f.png")]
            table = {
                "reads the photo (baseline)": ["-c", READ, str(photo)],
                "`ureca caption --figure`, masks": caption,
            }
            for what, arguments in table.items():
                memory, seconds = measured(*arguments)
                rows.append(f"| {size} | {what} | {memory:.2f} | {seconds:.1f} |")
            photo.with_suffix(".json").unlink()
            memory, seconds = measured(*caption)
            rows.append(
                f"| {size} | `ureca caption --figure`, superpixels | {memory:.2f} | {seconds:.1f} |"
            )
    print(f"{time.perf_counter() - start:.0f} s in all")
    record("Memory of captioning a large photo", "\n".join(rows), COMMAND)


if __name__ == "__main__":
    main()
