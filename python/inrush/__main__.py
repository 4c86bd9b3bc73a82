"""`python -m inrush` is the command `inrush`."""

from inrush.cli import main

if __name__ == "__main__":
    main()
