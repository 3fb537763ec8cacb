"""The same tree in other people's interfaces: each face translates, calls the engine, translates back."""
