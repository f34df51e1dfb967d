"""The small world: emoji scenes, a tiny Wan that draws them, and a judge that reads them."""

import pack

pack.register()  # for processes that multiprocessing starts: they import a script's package before the script itself
