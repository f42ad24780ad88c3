"""Balloon managers: each decides how much memory a guest is to keep, from what it sees."""
