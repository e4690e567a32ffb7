"""`python -m saferthoughts` is `saferthoughts`."""

from saferthoughts.cli.main import main

if __name__ == "__main__":
    main()
