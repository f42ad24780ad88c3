"""The balloon device (VIRTIO 1.3, section 5.5): the driver's half and the device's half."""
