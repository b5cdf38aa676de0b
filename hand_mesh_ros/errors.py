"""What this package raises, so that a caller can tell a bad frame from a bad file from a bug."""


class HandMeshError(Exception):
    """Base of every error that this package raises on purpose."""


class CameraError(HandMeshError):
    """Intrinsics that cannot be those of a camera."""


class FrameError(HandMeshError):
    """One frame that cannot be used; the next one may be fine. The node drops and counts it."""


class FileFormatError(HandMeshError):
    """A file that is missing, damaged or not what it should be. Names its path and the remedy."""


class ConfigurationError(HandMeshError):
    """A parameter or option that cannot work; raised at start, before any frame."""


class EngineError(HandMeshError):
    """An engine that TensorRT could not build or load, or that does not compute what its graph does."""
