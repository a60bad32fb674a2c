"""`python -m ureca_lib.cli COMMAND`: the same as `ureca COMMAND`."""

from ureca_lib.cli import app

if __name__ == "__main__":
    app()
