"""`python -m botplatform.cli`: the command line where the script is not on the path."""

from botplatform.cli import main

if __name__ == "__main__":
    main()
