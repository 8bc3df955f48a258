"""``python -m crossrank``."""

from crossrank.cli.main import run

if __name__ == "__main__":
    run()
