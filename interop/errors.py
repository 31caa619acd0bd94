"""What interop raises: each says what was expected, what came and what to do."""


class ConversionError(ValueError):
    """A module, a program or an operation that cannot be converted faithfully."""


class UncoveredOperation(ConversionError):
    """An operation without a rule, by name and by the source line that it came from."""
