"""python -m deeplab_lit.fit: train; see --help."""

from deeplab_lit.cli import main

if __name__ == "__main__":
    main("fit")
