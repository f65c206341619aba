"""The corpus of woolly-lamb: texts of several kinds, all made by the modules of this package."""
