"""`python -m scribblediffusion.cli`."""

from scribblediffusion.cli import main

main()
