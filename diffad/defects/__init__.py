"""Where images are strange: contrast, texture, features, and drawn defects that choose between them."""
