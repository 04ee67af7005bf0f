"""What runs inside FINN's own Python.

FINN pins versions of packages that this project needs in others, so it lives in an environment of its own
and is driven through :mod:`gfb_integrations.finn.client`. Nothing here imports gfb_brevitas or PyTorch, and
nothing outside imports this package: it is run as ``python -I <this folder>``.
"""
