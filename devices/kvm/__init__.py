"""A very small virtual machine of Linux's KVM: an instrument to measure with, not a VMM."""
