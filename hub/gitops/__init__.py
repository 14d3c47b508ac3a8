"""The GitOps agent: keeps a clone in step with its branch, and the running stack in step with the clone.

Standard library only, Python 3.9 or newer: it runs on the host from a zipapp or a plain checkout, without a
venv.
"""
