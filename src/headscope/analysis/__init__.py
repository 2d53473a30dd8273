"""From the record to results: arrays in, small frozen dataclasses and tables out.

`__init__.pyi` lists the names and their modules; each module is imported when one of its names is
first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
