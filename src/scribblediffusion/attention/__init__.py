"""Real cross-attention from any diffusers pipeline: extract it, prove it, keep it, read it.

`trace` and the records it is made of need numpy alone; `extractor` needs torch and diffusers.
Import from the modules, or the two main names from the top of the package.
"""
