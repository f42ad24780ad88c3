"""A real Linux guest: User-Mode Linux, an ordinary process that needs neither KVM nor privilege."""
