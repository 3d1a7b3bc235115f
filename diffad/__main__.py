"""``python -m diffad`` is ``diffad``."""

from diffad.cli import app

if __name__ == "__main__":
    app(prog_name="diffad")
