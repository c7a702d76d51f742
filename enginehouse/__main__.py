"""`python -m enginehouse`: how the processes of the local stack start each other."""

from enginehouse.cli import main

if __name__ == "__main__":
    main()
