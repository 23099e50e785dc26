"""`python -m tunesmith`: what a launcher such as torchrun starts."""

from tunesmith.cli import main

main()
