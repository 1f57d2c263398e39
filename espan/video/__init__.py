"""Video through PyAV (the extra `video`): decode, upscale, encode; all other streams are kept.

source -> colour -> network -> colour -> encoding -> segments -> mux. On a CUDA GPU, packed and
on_device take the place of colour for 4:2:0 frames. convert.py connects these steps and can be
imported without PyAV.
"""
