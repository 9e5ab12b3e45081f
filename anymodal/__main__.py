"""`python -m anymodal` is the command line."""

from anymodal.cli import main

if __name__ == "__main__":
    main()
