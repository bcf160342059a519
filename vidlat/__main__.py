"""`python -m vidlat`, which torchrun and `accelerate launch -m` can start."""

from vidlat.cli import main

if __name__ == "__main__":
    main()
