"""The other half of a queue broke the protocol."""


class DriverError(Exception):
    """What the driver wrote breaks the specification; the device stops using the queue."""


class DeviceError(Exception):
    """What the device wrote breaks the specification; the driver stops using the queue."""
