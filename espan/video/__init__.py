"""Video through PyAV (the extra `video`): decode, upscale, encode; all other streams are kept.

source -> colour -> the network -> colour -> encoding -> segments -> mux; convert.py joins them, and
can be imported without PyAV.
"""
