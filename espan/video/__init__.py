"""Video through PyAV (the extra `video`): decode, upscale, encode; all other streams are kept.

source -> colour -> network -> colour -> encoding -> segments -> mux. convert.py connects these
steps and can be imported without PyAV.
"""
