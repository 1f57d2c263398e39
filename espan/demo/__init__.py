"""`espan demo`: a local web page that upscales images."""
