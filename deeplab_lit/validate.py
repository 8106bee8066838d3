"""python -m deeplab_lit.validate: score a checkpoint; see --help."""

from deeplab_lit.cli import main

if __name__ == "__main__":
    main("validate")
