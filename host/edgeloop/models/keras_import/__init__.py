"""Keras models as torch modules: built for the data's shapes, followed call by call, and compared with the original.

Keras is imported by the modules of this folder alone, `graph` excepted. docs/decisions/0018 says why a model is
translated and not wrapped.
"""
