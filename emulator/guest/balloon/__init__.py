"""The guest's balloon driver: it takes pages away from the guest, and gives them back."""
