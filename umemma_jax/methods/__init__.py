"""A method is a file here: how people write it, where it comes from, and what of the recipe of `ume_mma` it has.

Every file exports `LABEL`, `SOURCE` and `SWITCHES`: whether there is a uni-modal stage, a fusion stage, and
missing-modality augmentation. Files are found, none is asked for by its name.
"""

import importlib
import pkgutil
from types import ModuleType


def _found() -> dict[str, ModuleType]:
    """Name -> module, from the method with the fewest parts of the recipe to the one with all."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return dict(sorted(modules.items(), key=lambda item: tuple(item[1].SWITCHES.values())))


METHODS = _found()
