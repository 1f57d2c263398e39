"""`espan demo`: a web page that upscales pictures, for the people of one machine."""
