"""What interop raises: each says what was expected, what came and what to do."""


class ConversionError(ValueError):
    """A module, a program or an operation that cannot be converted faithfully."""


class DecidesOnValues(ConversionError):
    """A module whose program depends on the values of tensors."""


class UncoveredOperation(ConversionError):
    """An operation without a rule, by name and by the source line that it came from."""


def keeps(names: str) -> str:
    """What is said of attributes that forward changes."""
    return (
        f"forward keeps {names} for its next call, which a pure function cannot: register it as a "
        "buffer, which net.stateful returns, or pass it and return it"
    )
