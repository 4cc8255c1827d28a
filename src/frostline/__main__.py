"""`python -m frostline` is `frostline`."""

from frostline.cli import main

if __name__ == "__main__":
    main()
