"""The split virtqueue: the driver's half and the device's half, and what wakes them."""
