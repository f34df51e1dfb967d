"""The small world: emoji scenes, a tiny Wan that draws them, and a judge that reads them."""
